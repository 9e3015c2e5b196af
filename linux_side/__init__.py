"""The producer: exports, compiles and writes artifacts on Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linux_side.driver.building import build
    from linux_side.exporter import export

__all__ = ["build", "export"]


def __getattr__(name: str) -> Any:
    # `export` needs torch, `build` does not until the child has it.
    if name == "build":
        from linux_side.driver.building import build

        return build
    if name == "export":
        from linux_side.exporter import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
