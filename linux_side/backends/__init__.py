"""The two backends that build engines, TensorRT-RTX and TensorRT, behind one interface."""

from __future__ import annotations

from linux_side.backends.base import EngineBuilder
from toolchain.errors import UsageError
from toolchain.targets import Backend


def engine_builder(name: str) -> EngineBuilder:
    """Returns the builder of a backend; ``auto`` is TensorRT-RTX, which needs no GPU.

    Raises:
        UsageError: there is no such backend.
    """
    from linux_side.backends.tensorrt import TensorRTBuilder
    from linux_side.backends.tensorrt_rtx import TensorRTRTXBuilder

    builders: dict[str, type[EngineBuilder]] = {
        "auto": TensorRTRTXBuilder,
        Backend.TENSORRT_RTX.value: TensorRTRTXBuilder,
        Backend.TENSORRT.value: TensorRTBuilder,
    }
    if name not in builders:
        raise UsageError(
            f"there is no backend {name!r}", where="--backend", remedy="use one of: " + ", ".join(builders)
        )
    return builders[name]()
