"""Records a network, and runs what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch

# Each registers what it reads.
from tests.integration.network import (  # noqa: F401
    indexing,
    pointwise,
    products,
    reductions,
    sampling,
    shapes,
    windows,
)
from tests.integration.network.layers import (
    READERS,
    Layer,
    NetworkError,
    UnknownLayerError,
    torch_dtype,
)

Tensor = torch.Tensor


@dataclass(frozen=True)
class Slot:
    """A tensor of a network.

    Attributes:
        name: TensorRT's name of it.
        dtype: its dtype.
        shape: its sizes, -1 for one that varies; None where TensorRT knows none.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...] | None

    def check(self, value: Tensor, where: str) -> None:
        """Raises :class:`NetworkError` unless a value has this dtype and these sizes."""
        if value.dtype != self.dtype:
            raise NetworkError(f"{where}: {self.name!r} is {value.dtype}, and TensorRT says {self.dtype}")
        sizes = tuple(value.shape)
        if self.shape is not None and (
            len(sizes) != len(self.shape) or any(b not in (-1, a) for a, b in zip(sizes, self.shape, strict=True))
        ):
            raise NetworkError(f"{where}: {self.name!r} has shape {sizes}, and TensorRT says {self.shape}")


@dataclass(frozen=True)
class Step:
    """A layer with its tensors, by their places among a run's values."""

    layer: str
    kind: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    compute: Callable[..., Any] = field(repr=False)


@dataclass(frozen=True)
class Network:
    """A recorded network; it needs nothing of TensorRT any more, and holds copies of all weights.

    Attributes:
        slots: every tensor.
        inputs: the network's inputs, by their places in ``slots``.
        outputs: its outputs.
        steps: in an order in which they can run.
    """

    slots: tuple[Slot, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self.slots[index].name for index in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(self.slots[index].name for index in self.outputs)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            inputs: by name, on the CPU; none is written to.

        Raises:
            NetworkError: a layer is asked for what its documentation forbids, an input has a wrong dtype or shape, or
                a layer's result is not what TensorRT said that it would be.
        """
        values = self.run_all(inputs)
        return {self.slots[index].name: values[index] for index in self.outputs}

    def run_all(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Every tensor's value, in the order of ``slots``."""
        if set(inputs) != set(self.input_names):
            raise NetworkError(f"inputs {sorted(inputs)} to a network that takes {sorted(self.input_names)}")
        values: dict[int, Tensor] = {}
        for index in self.inputs:
            value = inputs[self.slots[index].name]
            self.slots[index].check(value, "input")
            values[index] = value
        with torch.no_grad():
            for step in self.steps:
                arguments = [None if index is None else values[index] for index in step.inputs]
                for index, value in zip(step.outputs, self._results(step, arguments), strict=True):
                    values[index] = value
        return [values[index] for index in range(len(self.slots))]

    def _results(self, step: Step, arguments: Sequence[Tensor | None]) -> list[Tensor]:
        where = f"layer {step.layer!r} ({step.kind})"
        try:
            results = step.compute(*map(_widened, arguments))
        except NetworkError as error:
            raise type(error)(f"{where}: {error}") from error
        except Exception as error:
            shapes = [None if value is None else (value.dtype, tuple(value.shape)) for value in arguments]
            raise NetworkError(f"{where} of {shapes}: {error}") from error
        results = [results] if isinstance(results, Tensor) else list(results)
        slots = [self.slots[index] for index in step.outputs]
        results = [_rounded(result, slot.dtype) for result, slot in zip(results, slots, strict=True)]
        for result, slot in zip(results, slots, strict=True):
            slot.check(result, where)
        return results


_HALVES = (torch.float16, torch.bfloat16)


def _widened(value: Tensor | None) -> Tensor | None:
    return value.float() if value is not None and value.dtype in _HALVES else value


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() and dtype in _HALVES else value


def record(network: Any) -> Network:
    """Records an ``INetworkDefinition``, its weights too.

    Raises:
        UnknownLayerError: it has a layer that the interpreter does not compute.
    """
    import tensorrt_rtx as trt

    return _Recorder(trt).record(network)


class _Recorder:
    """Gives each ``ITensor`` a place.

    The bindings give the same Python object for the same tensor as long as somebody holds it: ``_tensors`` does.
    """

    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self._tensors: list[Any] = []
        self._places: dict[int, int] = {}

    def record(self, network: Any) -> Network:
        inputs = tuple(self._place(network.get_input(index)) for index in range(network.num_inputs))
        layers = [self._layer(network.get_layer(index)) for index in range(network.num_layers)]
        steps = _in_order([self._step(layer) for layer in layers])
        outputs = tuple(self._place(network.get_output(index)) for index in range(network.num_outputs))
        made = {*inputs, *(index for step in steps for index in step.outputs)}
        for index, tensor in enumerate(self._tensors):
            if index not in made:
                raise NetworkError(f"no layer gives tensor {tensor.name!r}")
        return Network(tuple(map(_slot, self._tensors)), inputs, outputs, steps)

    def _layer(self, layer: Any) -> Layer:
        kind = layer.type.name
        if kind not in READERS:
            raise UnknownLayerError(f"layer {layer.name!r} is a {kind}, which the interpreter does not compute")
        subclass, reader = READERS[kind]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        recorded = Layer(layer.name, kind, inputs, outputs, compute=list)
        # The bindings give plain ILayer objects: their class says which settings can be read.
        layer.__class__ = getattr(self._trt, subclass)
        try:
            recorded.compute = reader(layer, recorded)
        except NetworkError as error:
            raise type(error)(f"{recorded}: {error}") from error
        return recorded

    def _step(self, layer: Layer) -> Step:
        inputs = tuple(None if tensor is None else self._place(tensor) for tensor in layer.inputs)
        outputs = tuple(self._place(tensor) for tensor in layer.outputs)
        return Step(layer.name, layer.kind, inputs, outputs, layer.compute)

    def _place(self, tensor: Any) -> int:
        if id(tensor) not in self._places:
            self._places[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        return self._places[id(tensor)]


def _slot(tensor: Any) -> Slot:
    try:
        shape = tuple(tensor.shape)
    except ValueError:  # a rank that TensorRT does not know has the length -1
        shape = None
    return Slot(tensor.name, torch_dtype(tensor.dtype), shape)


def _in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Each step behind those whose outputs it takes; otherwise as they were added."""
    makers = {index: number for number, step in enumerate(steps) for index in step.outputs}
    graph = {number: {makers[index] for index in step.inputs if index in makers} for number, step in enumerate(steps)}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise NetworkError("the layers wait for one another") from error
    return tuple(steps[number] for number in order)
