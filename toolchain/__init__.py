"""trtcross: compile PyTorch models to TensorRT on Linux, ship one file, run it on Windows.

This package is what both sides share. It imports neither of them, and no torch.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain.artifact import Artifact, Engine, open_artifact

__all__ = ["Artifact", "Engine", "__version__", "open_artifact"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `trtcross --help` needs none of it.
    if name == "__version__":
        try:
            return metadata.version("trtcross")
        except metadata.PackageNotFoundError:
            return "0+uninstalled"
    if name in __all__:
        from toolchain import artifact

        return getattr(artifact, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
