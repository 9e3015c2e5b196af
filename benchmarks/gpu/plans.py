"""Lists the inner tensors of a network, and calls single plans without an artifact.

Calling a plan needs only torch and tensorrt_rtx.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAMPLE = 4096


def sampled(value: Tensor) -> Tensor:
    """Returns a flat copy of a tensor; of a large one, ``SAMPLE`` elements at even distances."""
    flat = value.reshape(-1)
    if flat.numel() > SAMPLE:
        flat = flat[torch.linspace(0, flat.numel() - 1, SAMPLE, dtype=torch.float64).long().to(flat.device)]
    return flat.clone()


def inner_tensors(network: Any) -> Iterator[tuple[int, Any]]:
    """Yields each tensor that a layer computes, after its slot in the recording.

    Constants are left out, and so are shape tensors, which TensorRT often refuses as outputs: their errors appear in
    the shapes of other tensors.
    """
    from tests.integration.network import record

    recorded = record(network)
    inside = {
        index for step in recorded.steps if hasattr(step, "body") for inner in step.body for index in inner.outputs
    }
    for number, step in enumerate(recorded.layers):
        if step.kind != "CONSTANT":
            layer = network.get_layer(number)
            for place, slot in enumerate(step.outputs):
                tensor = layer.get_output(place)
                if slot not in inside and step.boundary is None and not tensor.is_shape_tensor:
                    yield slot, tensor


class Plan:
    """An engine of a file with one context, by TensorRT-RTX's own API."""

    def __init__(self, file: Path, kernels: str | None = None) -> None:
        """Loads an engine.

        Args:
            file: the plan.
            kernels: TensorRT-RTX's strategy for sizes that vary: ``lazy`` (its default), ``eager`` or ``none``.

        Raises:
            RuntimeError: TensorRT-RTX refuses the engine.
        """
        import tensorrt_rtx as trt

        self._dtypes = {
            trt.float32: torch.float32, trt.float16: torch.float16, trt.bfloat16: torch.bfloat16,
            trt.int64: torch.int64, trt.int32: torch.int32, trt.int8: torch.int8, trt.uint8: torch.uint8,
            trt.bool: torch.bool,
        }  # fmt: skip
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            raise RuntimeError("TensorRT-RTX refuses the engine")
        config = engine.create_runtime_config()
        if kernels is not None:
            strategy = getattr(trt.DynamicShapesKernelSpecializationStrategy, kernels.upper())
            config.dynamic_shapes_kernel_specialization_strategy = strategy
        self._context = engine.create_execution_context(config)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        host = trt.TensorLocation.HOST
        self._devices = {name: "cpu" if engine.get_tensor_location(name) == host else "cuda" for name in names}

    def __call__(self, inputs: dict[str, Tensor], aliases: dict[str, str]) -> dict[str, Tensor]:
        """Runs the engine, and returns every output by its binding's name.

        Args:
            inputs: the inputs by binding name.
            aliases: for each output that shares an input's memory, that input.

        Raises:
            RuntimeError: TensorRT-RTX refuses the call.
        """
        bound = {name: value.to(self._devices[name]).clone() for name, value in inputs.items() if name in self._devices}
        for name, value in bound.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                raise RuntimeError(f"TensorRT-RTX refuses the shape {tuple(value.shape)} of {name}")
            self._bind(name, value)  # sizes of outputs may depend on an input's value
        outputs = {name: self._output(name, bound.get(aliases.get(name, ""))) for name in self._devices.keys() - bound}
        for name, value in outputs.items():
            self._bind(name, value)
        torch.cuda.synchronize()
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT-RTX refuses the call")
        torch.cuda.synchronize()
        return outputs

    def _bind(self, name: str, value: Tensor) -> None:
        # An empty tensor has a null address, which TensorRT refuses.
        address = value.data_ptr() or torch.empty(1, device=self._devices[name]).data_ptr()
        self._context.set_tensor_address(name, address)

    def _output(self, name: str, shared: Tensor | None) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = self._dtypes[self._engine.get_tensor_dtype(name)]
        return torch.empty(shape, dtype=dtype, device=self._devices[name]) if shared is None else shared


def execute(
    file: Path, inputs: dict[str, Tensor], aliases: dict[str, str], kernels: str | None = None
) -> dict[str, Tensor]:
    """Runs an engine once; the arguments, result and errors are those of :class:`Plan`."""
    return Plan(file, kernels)(inputs, aliases)
