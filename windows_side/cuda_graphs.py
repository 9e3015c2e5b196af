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
from windows_side.hot_inputs import HotInputs, Places, places_of

# Each graph keeps its outputs and what lies between them and the inputs on the GPU.
MAX_SHAPES = 16
MAX_PLACES = 16
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
class _OwnInputs:
    """A graph that reads inputs of its own, into which a caller's are copied.

    Attributes:
        inputs: those.
        arguments: a call with them.
    """

    inputs: list[torch.Tensor]
    arguments: list[Any]
    graph: _Graph


class CapturedProgram:
    """Captures a flat program when it first sees a set of input shapes, and replays it from then on.

    Inputs are copied into the graph's own; where they keep coming at the same place, another graph reads them there.
    Outputs are copied, so that no call's outputs change with the next. The least recently used of more than
    ``MAX_SHAPES`` graphs of the one kind, or ``MAX_PLACES`` of the other, is released.
    """

    def __init__(self, flat: torch.fx.GraphModule, program: ExportedProgram, device: torch.device) -> None:
        self._flat = flat
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._by_shapes: OrderedDict[Shapes, _OwnInputs] = OrderedDict()
        self._in_place: OrderedDict[Places, _Graph] = OrderedDict()
        self._hot = HotInputs()
        signature = program.graph_signature
        self._state = [flat.get_buffer(name) for name in signature.buffers_to_mutate.values()]
        changed = set(signature.user_inputs_to_mutate.values())
        arguments = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        tensors = [argument.name for argument in arguments if isinstance(argument, TensorArgument)]
        self._changed_inputs = [index for index, name in enumerate(tensors) if name in changed]

    def in_place(self, leaves: Sequence[Any]) -> _Graph | None:
        """The graph that reads these very leaves, if there is one; they have passed every check before."""
        places = places_of(leaves)
        graph = self._in_place.get(places) if places else None
        if graph is not None:
            self._in_place.move_to_end(places)  # type: ignore[arg-type]
        return graph

    def __call__(self, *leaves: Any) -> list[Any]:
        """The program's flat outputs; the tensors are the caller's own.

        Raises:
            IncompatibleError: the program cannot be captured.
        """
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        own = self._own_inputs(leaves, tensors)
        places = places_of(leaves)
        if places and _may_be_read_there(tensors) and self._hot.worth_capturing(places):
            return self._capture_in_place(places, leaves, own).replay()
        torch._foreach_copy_(own.inputs, tensors)
        outputs = own.graph.replay()
        for index in self._changed_inputs:
            tensors[index].copy_(own.inputs[index])
        return outputs

    def _own_inputs(self, leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _OwnInputs:
        shapes = tuple(tensor.shape for tensor in tensors)
        own = self._by_shapes.get(shapes)
        if own is None:
            inputs = [tensor.clone() for tensor in tensors]
            arguments = _with_tensors(leaves, inputs)
            own = self._by_shapes[shapes] = _OwnInputs(inputs, arguments, self._capture(arguments, arguments))
            self._release_beyond(MAX_SHAPES, self._by_shapes)
        self._by_shapes.move_to_end(shapes)
        return own

    def _capture_in_place(self, places: Places, leaves: Sequence[Any], own: _OwnInputs) -> _Graph:
        graph = self._in_place[places] = self._capture(leaves, own.arguments)
        replaced = self._release_beyond(MAX_PLACES, self._in_place)
        self._hot.captured(places, replaced=replaced)
        return graph

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


def _may_be_read_there(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an engine may read them where they lie: elements one after another, aligned as an allocation is."""
    return all(tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0 for tensor in tensors)
