"""trtcross: compile PyTorch models to TensorRT on Linux, ship one file, run it on Windows.

This package is what both sides share. It imports neither side and no torch::

    from toolchain import open_artifact

    with open_artifact("resnet50.pt2") as artifact:
        print(artifact.manifest.target.platform, artifact.manifest.inputs)
        for engine in artifact.engines:
            print(engine.name, engine.size, engine.entry.sha256)
            plan = engine.read()  # bytes, whose digest is checked

Also public: :mod:`toolchain.manifest`, :mod:`toolchain.checker`, :mod:`toolchain.signing`,
:mod:`toolchain.report`. Everything else is internal (``docs/reference/api.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain.artifact import Artifact, Engine, open_artifact

__all__ = ["Artifact", "Engine", "__version__", "open_artifact"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `trtcross --help` needs none of it.
    if name == "__version__":
        from toolchain.host.installed import own_version

        return own_version()
    if name in __all__:
        from toolchain import artifact

        return getattr(artifact, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
