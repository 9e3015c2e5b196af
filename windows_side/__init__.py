"""The consumer: checks an artifact against a machine, loads it and runs it. Runs on Windows and on Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windows_side.execution.model import LoadedModel
    from windows_side.loader.loading import load
    from windows_side.loader.replace import replace_execute_engine_no_op_node
    from windows_side.preflight.requirements import check

__all__ = ["LoadedModel", "check", "load", "replace_execute_engine_no_op_node"]

_HOMES = {
    "LoadedModel": "windows_side.execution.model",
    "check": "windows_side.preflight.requirements",
    "load": "windows_side.loader.loading",
    "replace_execute_engine_no_op_node": "windows_side.loader.replace",
}


def __getattr__(name: str) -> Any:
    # `check` needs no torch, so nothing here imports it before it is asked for.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
