"""The recorded layer, and the registry of known layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Value: TypeAlias = torch.Tensor
Compute = Callable[..., "Value | Sequence[Value]"]


class NetworkError(Exception):
    """A layer does what its documentation forbids, or the interpreter and TensorRT disagree about a result's form."""


class UnknownLayerError(NetworkError):
    """A layer, or a setting of one, that the interpreter does not compute."""


@dataclass(frozen=True)
class Boundary:
    """The role of a layer at the boundary of a loop or a conditional.

    Attributes:
        scope: the name of the loop or conditional.
        role: which of its boundaries the layer is.
        kind: the kind of a limit or an output.
        axis: the axis along which a tensor is split or joined.
        backward: whether it starts at the end.
    """

    scope: str
    role: str
    kind: str = ""
    axis: int = 0
    backward: bool = False


@dataclass
class Layer:
    """A layer as it is being recorded.

    Attributes:
        name: the layer's name in TensorRT.
        kind: the name of its ``LayerType``.
        inputs: an ``ITensor`` for each input; None for an optional one that is missing. A reader may replace them:
            ``compute`` is called with their values.
        outputs: an ``ITensor`` for each output.
        compute: computes the outputs' values from the inputs'.
        boundary: the role at the boundary of a loop or a conditional; None for other layers.
    """

    name: str
    kind: str
    inputs: list[Any]
    outputs: list[Any]
    compute: Compute = list
    boundary: Boundary | None = None

    @property
    def dtypes(self) -> list[torch.dtype]:
        """The dtype of each output."""
        return [torch_dtype(output.dtype) for output in self.outputs]


# Reads a layer of the ILayer subclass that it is registered for, copies its settings and weights, and returns its
# computation. It may change the Layer.
Reader = Callable[[Any, Layer], Compute]

READERS: dict[str, tuple[str, Reader]] = {}


def reads(kind: str, subclass: str) -> Callable[[Reader], Reader]:
    """Registers a reader for a ``LayerType``; ``subclass`` is the name of the Python class that has its settings."""

    def register(reader: Reader) -> Reader:
        READERS[kind] = (subclass, reader)
        return reader

    return register


_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


def torch_dtype(dtype: Any) -> torch.dtype:
    """Returns PyTorch's dtype for one of TensorRT.

    Raises:
        UnknownLayerError: PyTorch has no such dtype.
    """
    if dtype.name not in _DTYPES:
        raise UnknownLayerError(f"no tensors of {dtype} are computed here")
    return _DTYPES[dtype.name]


def axes_of(mask: int) -> tuple[int, ...]:
    """Returns the dimensions whose bits are set in a mask."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)


def integers(value: torch.Tensor) -> list[int]:
    """Returns the numbers of a shape tensor."""
    return [int(number) for number in value.reshape(-1).tolist()]


def demand(condition: bool, complaint: str) -> None:
    """Raises :class:`NetworkError` with the complaint, unless the condition holds."""
    if not condition:
        raise NetworkError(complaint)


def only(condition: bool, setting: str) -> None:
    """Raises :class:`UnknownLayerError` for a setting that is not computed, unless the condition holds."""
    if not condition:
        raise UnknownLayerError(f"not computed here: {setting}")
