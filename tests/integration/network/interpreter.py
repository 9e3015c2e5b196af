"""Records a network, and runs what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Each registers the layers that it reads.
from tests.integration.network import (  # noqa: F401
    indexing,
    pointwise,
    products,
    reductions,
    sampling,
    shapes,
    windows,
)
from tests.integration.network.control import structured
from tests.integration.network.layers import READERS, Layer, NetworkError, UnknownLayerError, torch_dtype
from tests.integration.network.steps import Runnable, Slot, Step, run_steps


@dataclass(frozen=True)
class Network:
    """A recorded network; it needs nothing of TensorRT any more, and holds copies of all weights.

    Attributes:
        slots: every tensor.
        inputs: the network's inputs, by their places in ``slots``.
        outputs: its outputs.
        layers: as they were added.
        steps: what runs, in order.
    """

    slots: tuple[Slot, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layers: tuple[Step, ...]
    steps: tuple[Runnable, ...] = field(repr=False)

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

    def run_all(self, inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Every tensor's value but those within loops, by its place in ``slots``."""
        if set(inputs) != set(self.input_names):
            raise NetworkError(f"inputs {sorted(inputs)} to a network that takes {sorted(self.input_names)}")
        values: dict[int, Tensor] = {}
        for index in self.inputs:
            values[index] = inputs[self.slots[index].name]
            self.slots[index].check(values[index], "input")
        with torch.no_grad():
            run_steps(self.steps, values, self.slots)
        return values


def record(network: Any) -> Network:
    """Records an ``INetworkDefinition``, its weights too.

    Raises:
        UnknownLayerError: it has a layer that the interpreter does not compute.
        NetworkError: it is not whole.
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
        layers = tuple(self._step(self._layer(network.get_layer(index))) for index in range(network.num_layers))
        outputs = tuple(self._place(network.get_output(index)) for index in range(network.num_outputs))
        made = {*inputs, *(index for step in layers for index in step.outputs)}
        for index, tensor in enumerate(self._tensors):
            if index not in made:
                raise NetworkError(f"no layer gives tensor {tensor.name!r}")
        return Network(tuple(map(_slot, self._tensors)), inputs, outputs, layers, structured(layers))

    def _layer(self, layer: Any) -> Layer:
        kind = layer.type.name
        if kind not in READERS:
            raise UnknownLayerError(f"layer {layer.name!r} is a {kind}, which the interpreter does not compute")
        subclass, reader = READERS[kind]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        recorded = Layer(layer.name, kind, inputs, outputs)
        # The bindings give plain ILayer objects: their class says which settings can be read.
        layer.__class__ = getattr(self._trt, subclass)
        try:
            recorded.compute = reader(layer, recorded)
        except NetworkError as error:
            raise type(error)(f"layer {recorded.name!r} ({kind}): {error}") from error
        return recorded

    def _step(self, layer: Layer) -> Step:
        inputs = tuple(None if tensor is None else self._place(tensor) for tensor in layer.inputs)
        outputs = tuple(self._place(tensor) for tensor in layer.outputs)
        return Step(layer.name, layer.kind, inputs, outputs, layer.compute, layer.boundary)

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
    except RuntimeError as error:  # the bindings' words for a layer that TensorRT refuses
        raise NetworkError(f"TensorRT finds no shape for tensor {tensor.name!r}") from error
    return Slot(tensor.name, torch_dtype(tensor.dtype), shape)
