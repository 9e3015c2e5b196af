"""Whole programs as CUDA graphs: one launch replays every kernel of a call, for each set of input shapes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from toolchain.errors import IncompatibleError
from windows_side.hot_addresses import Addresses, HotAddresses

logger = logging.getLogger("trtcross.cuda_graphs")

# Each graph keeps its outputs and what lies between them and the inputs on the GPU.
MAX_SHAPES = 16
MAX_ADDRESSES = 2
_WARM_UP_CALLS = 3
_ALIGNMENT = 256

Shapes = tuple[torch.Size, ...]


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    outputs: list[Any]

    def replay(self) -> list[Any]:
        """The flat outputs, copied: the next replay writes over the graph's own."""
        self.graph.replay()
        return [out.clone() if isinstance(out, torch.Tensor) else out for out in self.outputs]


@dataclass(frozen=True)
class _Captured:
    """What there is for one set of input shapes.

    Attributes:
        inputs: the graph's own, into which a caller's are copied.
        arguments: a call with those.
        anywhere: the graph that reads them.
        in_place: graphs that read a caller's own inputs, by their addresses.
    """

    inputs: list[torch.Tensor]
    arguments: list[Any]
    anywhere: _Graph
    in_place: OrderedDict[Addresses, _Graph] = field(default_factory=OrderedDict)
    hot: HotAddresses = field(default_factory=HotAddresses)


class CapturedProgram:
    """Captures a flat program when it first sees a set of input shapes, and replays it from then on.

    Inputs are copied into the graph's own; where they keep coming at the same addresses, a second graph reads them
    there. Outputs are copied, so that no call's outputs change with the next. The least recently used of more than
    ``MAX_SHAPES`` sets of shapes, or ``MAX_ADDRESSES`` of addresses, is released.
    """

    def __init__(self, flat: torch.fx.GraphModule, program: ExportedProgram, device: torch.device) -> None:
        self._flat = flat
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: OrderedDict[Shapes, _Captured] = OrderedDict()
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
        captured = self._captured_for(leaves, tensors)
        graph = self._in_place(captured, leaves, tensors)
        return graph.replay() if graph else self._replay_anywhere(captured, tensors)

    def _captured_for(self, leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _Captured:
        shapes = tuple([tensor.shape for tensor in tensors])
        captured = self._captured.get(shapes)
        if captured is None:
            inputs = [tensor.detach().clone() for tensor in tensors]
            arguments = _with_tensors(leaves, inputs)
            captured = _Captured(inputs, arguments, self._capture(arguments, arguments))
            self._captured[shapes] = captured
            self._release_beyond(MAX_SHAPES, self._captured)
        self._captured.move_to_end(shapes)
        return captured

    def _in_place(self, captured: _Captured, leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _Graph | None:
        """The graph that reads these very tensors, if there is one or it is worth one."""
        addresses = tuple([tensor.data_ptr() for tensor in tensors])
        if not all(map(_is_plain, tensors)):  # the same address, read in another way
            return None
        graph = captured.in_place.get(addresses)
        if graph is None and _are_aligned(addresses) and captured.hot.worth_capturing(addresses):
            graph = captured.in_place[addresses] = self._capture(leaves, captured.arguments)
            replaced = self._release_beyond(MAX_ADDRESSES, captured.in_place)
            captured.hot.captured(addresses, replaced=replaced)
        if graph is not None:
            captured.in_place.move_to_end(addresses)
        return graph

    def _replay_anywhere(self, captured: _Captured, tensors: Sequence[torch.Tensor]) -> list[Any]:
        torch._foreach_copy_(captured.inputs, tensors)
        outputs = captured.anywhere.replay()
        for index in self._changed_inputs:
            tensors[index].copy_(captured.inputs[index])
        return outputs

    def _release_beyond(self, limit: int, graphs: OrderedDict[Any, Any]) -> bool:
        if len(graphs) <= limit:
            return False
        torch.cuda.synchronize(self._device)  # the oldest may still be running
        graphs.popitem(last=False)
        return True

    def _capture(self, arguments: Sequence[Any], warm_up: Sequence[Any]) -> _Graph:
        """A graph of a call with ``arguments``.

        Args:
            warm_up: arguments of the same shapes, with which the program is called before: kernels are compiled and
                memory is taken outside the capture. Capturing itself computes nothing.
        """
        before = [buffer.clone() for buffer in self._state]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_CALLS):
                    self._flat.forward(*warm_up)
            # Not in the global mode, in which whatever another thread allocates meanwhile would break the capture.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
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
        return _Graph(graph, outputs)


def _with_tensors(leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The leaves of a call with other tensors in it."""
    others = iter(tensors)
    return [next(others) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def _are_aligned(addresses: Addresses) -> bool:
    """Whether TensorRT may read there without looking: torch's allocator gives such, views may not."""
    return all(address % _ALIGNMENT == 0 for address in addresses)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its elements lie one after another, as they are."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
