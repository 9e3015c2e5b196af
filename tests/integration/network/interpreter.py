"""Records a network, and runs the recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Importing each of these registers the layers that it reads.
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
    """A recorded network, which needs TensorRT no more and has copies of all weights.

    Attributes:
        slots: all tensors.
        inputs: the network's inputs, as indices of ``slots``.
        outputs: the network's outputs, as indices of ``slots``.
        layers: the layers in the order in which they were added.
        steps: the steps in the order in which they run.
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
        """Computes the outputs by name.

        Args:
            inputs: the inputs by name, on the CPU; none is written to.

        Raises:
            NetworkError: a layer does what its documentation forbids, an input has a wrong dtype or shape, or a layer's
                result does not have the dtype or shape that TensorRT states.
        """
        values = self.run_all(inputs)
        return {self.slots[index].name: values[index] for index in self.outputs}

    def run_all(self, inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Computes every tensor except those within loops, by its index in ``slots``."""
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
    """Records an ``INetworkDefinition`` and its weights.

    Raises:
        UnknownLayerError: the network has a layer that the interpreter does not compute.
        NetworkError: the network is not complete.
    """
    import tensorrt_rtx as trt

    return _Recorder(trt).record(network)


class _Recorder:
    """Assigns a slot to each ``ITensor``.

    The bindings return the same Python object for the same tensor as long as it is referenced, as by ``_tensors``.
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
        # The bindings return plain ILayer objects; the class must be set, so that a layer's settings can be read.
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
    except RuntimeError as error:  # the bindings raise it for a layer that TensorRT refuses
        raise NetworkError(f"TensorRT finds no shape for tensor {tensor.name!r}") from error
    return Slot(tensor.name, torch_dtype(tensor.dtype), shape)
