"""The floor of a call: one engine, called by TensorRT-RTX's own Python API with buffers that are bound once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorrt_rtx as trt
import torch

from toolchain.artifact import Engine

if TYPE_CHECKING:
    from windows_side.execution.model import LoadedModel

_DTYPES = {
    trt.float32: torch.float32, trt.float16: torch.float16, trt.bfloat16: torch.bfloat16,
    trt.int64: torch.int64, trt.int32: torch.int32, trt.bool: torch.bool,
}  # fmt: skip


def engine_inputs(model: LoadedModel, leaves: Sequence[Any]) -> list[torch.Tensor]:
    """Returns the inputs of a model's only engine when the model is called with these leaves."""
    seen: list[torch.Tensor] = []

    class Watching(torch.fx.Interpreter):
        def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if "execute_engine" in str(target):
                seen.extend(args[0])
            return super().call_function(target, args, kwargs)

    with torch.no_grad():
        Watching(model._flat).run(*leaves, enable_io_processing=False)
    return [value.contiguous() for value in seen]


class RawEngine:
    """An engine whose inputs and outputs are bound; a call only enqueues it.

    For dynamic shapes, kernels for the very shapes are compiled before the first call, as with our CUDA graphs.

    Args:
        engine: the engine in the artifact.
        inputs: its inputs in the order of the engine info.
        cache: a file of compiled kernels, which is read if it exists; :meth:`keep_kernels` writes it.
    """

    def __init__(self, engine: Engine, inputs: Sequence[torch.Tensor], cache: Path | None = None) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine.read())
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache, self._cache_file = config.create_runtime_cache(), cache
        if cache and cache.exists():
            self._cache.deserialize(cache.read_bytes())
        config.set_runtime_cache(self._cache)
        self._context = self._engine.create_execution_context(config)
        info = engine.info
        bound = dict(zip(info.input_names, inputs, strict=True))
        for name, tensor in bound.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        aliases = {alias.output: bound[alias.input] for alias in info.aliased_io}
        self.outputs = [aliases.get(name, self._empty(name)) for name in info.output_names]
        for name, tensor in zip(info.output_names, self.outputs, strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        self._kept = bound

    def __call__(self) -> None:
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT-RTX refused the call")

    def keep_kernels(self) -> None:
        """Writes the file of kernels; it must be called after a first call of the engine."""
        if self._cache_file:
            part = self._cache_file.with_suffix(".part")
            part.write_bytes(memoryview(self._cache.serialize()))
            part.replace(self._cache_file)

    def _empty(self, name: str) -> torch.Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        return torch.empty(shape, dtype=_DTYPES[self._engine.get_tensor_dtype(name)], device="cuda")


def captured(callee: Any) -> Any:
    """Captures a callee as a CUDA graph, and returns the graph's replay."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            callee()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        callee()
    return graph.replay
