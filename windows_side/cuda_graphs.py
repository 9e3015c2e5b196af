"""Whole programs as CUDA graphs: one launch replays every kernel of a call, for each set of input shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from toolchain.errors import IncompatibleError

# Each graph keeps its inputs, its outputs and what lies between them on the GPU.
MAX_GRAPHS = 16
_WARM_UP_CALLS = 3

Key = tuple[torch.Size | None, ...]


@dataclass(frozen=True)
class _Capture:
    graph: torch.cuda.CUDAGraph
    inputs: list[torch.Tensor]
    outputs: list[Any]


class CapturedProgram:
    """Captures a flat program when it first sees a set of input shapes, and replays it from then on.

    Inputs are copied into the graph's own and outputs out of them, so that no call's outputs change with the next.
    The least recently used of more than ``MAX_GRAPHS`` graphs is released.
    """

    def __init__(self, flat: torch.fx.GraphModule, program: ExportedProgram, device: torch.device) -> None:
        self._flat = flat
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._captures: OrderedDict[Key, _Capture] = OrderedDict()
        signature = program.graph_signature
        self._state = [flat.get_buffer(name) for name in signature.buffers_to_mutate.values()]
        changed = set(signature.user_inputs_to_mutate.values())
        arguments = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        tensors = [argument.name for argument in arguments if isinstance(argument, TensorArgument)]
        self._changed_inputs = [index for index, name in enumerate(tensors) if name in changed]

    def __call__(self, *leaves: Any) -> list[Any]:
        """The program's flat outputs; the tensors are the caller's own.

        Raises:
            IncompatibleError: the program cannot be captured.
        """
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        key = tuple(tensor.shape for tensor in tensors)
        capture = self._captures.get(key)
        if capture is None:
            capture = self._captures[key] = self._capture(leaves, tensors)
            if len(self._captures) > MAX_GRAPHS:
                torch.cuda.synchronize(self._device)  # the oldest may still be running
                self._captures.popitem(last=False)
        self._captures.move_to_end(key)
        torch._foreach_copy_(capture.inputs, tensors)
        capture.graph.replay()
        for index in self._changed_inputs:
            tensors[index].copy_(capture.inputs[index])
        return [out.clone() if isinstance(out, torch.Tensor) else out for out in capture.outputs]

    def _capture(self, leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _Capture:
        inputs = [tensor.clone() for tensor in tensors]
        statics = iter(inputs)
        arguments = [next(statics) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        before = [buffer.clone() for buffer in self._state]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_CALLS):  # kernels are compiled and memory is taken outside the capture
                    self._flat.forward(*arguments)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                outputs = list(self._flat.forward(*arguments))
        except RuntimeError as error:
            raise IncompatibleError(
                f"this model cannot be captured in a CUDA graph: {error}",
                where="load(cuda_graphs=True)",
                remedy="load it without cuda_graphs",
            ) from error
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        for buffer, value in zip(self._state, before, strict=True):
            buffer.copy_(value)  # warming up has changed it
        return _Capture(graph, inputs, outputs)
