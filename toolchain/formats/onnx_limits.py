"""Refuses what NVIDIA's plugin for onnxruntime cannot run, or would run wrongly. Needs no onnx."""

from __future__ import annotations

from toolchain.errors import IncompatibleError
from toolchain.formats.source import Source
from toolchain.graph.program import CastStep
from toolchain.manifest.models import Binding, ValueSpec
from toolchain.targets import Backend

DTYPES = ("float32", "float16", "bfloat16", "bool", "int8", "uint8", "int32", "int64", "float8_e4m3fn")
"""The dtypes of inputs and outputs that the plugin accepts."""

_CASTS = (*DTYPES, "float64", "int16")


def require_runnable(source: Source) -> None:
    """Refuses an artifact that the plugin cannot run, or would run wrongly.

    Raises:
        IncompatibleError: the first reason that was found.
    """
    manifest = source.manifest

    def refuse(problem: str, remedy: str) -> IncompatibleError:
        return IncompatibleError(problem, where=source.where, remedy=remedy)

    if manifest.target.backend is not Backend.TENSORRT_RTX:
        raise refuse(
            "its engines are TensorRT's, and the plugin runs those of TensorRT-RTX", "build with --backend tensorrt-rtx"
        )
    for entry in manifest.engines:
        if entry.aliased_io:
            pairs = ", ".join(f"{alias.output} over {alias.input}" for alias in entry.aliased_io)
            raise refuse(
                f"engine {entry.name} writes outputs over its inputs ({pairs}), which ONNX cannot express",
                "use windows_side.Session, or `convert --format engine`",
            )
        if len(entry.profiles) > 1:
            raise refuse(
                f"engine {entry.name} has {len(entry.profiles)} optimization profiles, and the plugin runs every call "
                "in the first: it would refuse sizes of the others",
                "build it with one profile that has all sizes, or use Session or `convert --format engine`",
            )
        for binding in (*entry.inputs, *entry.outputs):
            _require_dtype(binding, source)
    for step in source.program.steps:
        if isinstance(step, CastStep) and step.dtype not in _CASTS:
            raise refuse(
                f"a value between engines is cast to {step.dtype}, which ONNX's Cast does not give",
                "use windows_side.load (--runtime torch)",
            )
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.dtype is not None:
            _require_dtype(spec, source)
    for buffer in source.state:
        _require_dtype(Binding(name=buffer.name, dtype=buffer.stored.dtype, shape=list(buffer.stored.shape)), source)


def _require_dtype(value: Binding | ValueSpec, source: Source) -> None:
    if value.dtype not in DTYPES:
        raise IncompatibleError(
            f"{value.name} is {value.dtype}, and the plugin takes {', '.join(DTYPES)}",
            where=source.where,
            remedy="build the model with inputs and outputs of those",
        )
