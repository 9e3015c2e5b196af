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


def execute(
    plan: Path, inputs: dict[str, Tensor], aliases: dict[str, str], kernels: str | None = None
) -> dict[str, Tensor]:
    """Runs an engine by TensorRT-RTX's own API, and returns every output by its binding's name.

    Args:
        plan: the engine's file.
        inputs: the inputs by binding name.
        aliases: for each output that shares an input's memory, that input.
        kernels: TensorRT-RTX's strategy for sizes that vary: ``lazy`` (its default), ``eager`` or ``none``.

    Raises:
        RuntimeError: TensorRT-RTX refuses the engine or the call.
    """
    import tensorrt_rtx as trt

    dtypes = {
        trt.float32: torch.float32, trt.float16: torch.float16, trt.bfloat16: torch.bfloat16, trt.int64: torch.int64,
        trt.int32: torch.int32, trt.int8: torch.int8, trt.uint8: torch.uint8, trt.bool: torch.bool,
    }  # fmt: skip
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise RuntimeError("TensorRT-RTX refuses the engine")
    config = engine.create_runtime_config()
    if kernels is not None:
        strategy = getattr(trt.DynamicShapesKernelSpecializationStrategy, kernels.upper())
        config.dynamic_shapes_kernel_specialization_strategy = strategy
    context = engine.create_execution_context(config)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    device = {name: "cpu" if engine.get_tensor_location(name) == trt.TensorLocation.HOST else "cuda" for name in names}
    bound = {name: value.to(device[name]).clone() for name, value in inputs.items() if name in device}
    for name, value in bound.items():
        context.set_input_shape(name, tuple(value.shape))
    outputs = {}
    for name in names:
        if name not in bound:
            shape = tuple(context.get_tensor_shape(name))
            source = bound.get(aliases.get(name, ""))
            outputs[name] = torch.empty(shape, dtype=dtypes[engine.get_tensor_dtype(name)], device=device[name])
            outputs[name] = outputs[name] if source is None else source
    for name, value in {**bound, **outputs}.items():
        # An empty tensor has a null address, which TensorRT refuses.
        context.set_tensor_address(name, value.data_ptr() or torch.empty(1, device=device[name]).data_ptr())
    torch.cuda.synchronize()
    if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
        raise RuntimeError("TensorRT-RTX refuses the call")
    torch.cuda.synchronize()
    return outputs
