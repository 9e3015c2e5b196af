"""What a recorded layer is, and the table of the layers that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Value: TypeAlias = torch.Tensor
Compute = Callable[..., "Value | Sequence[Value]"]


class NetworkError(Exception):
    """A network does what its documentation forbids, or the interpreter and TensorRT differ about a result."""


class UnknownLayerError(NetworkError):
    """A layer, or a setting of one, that the interpreter does not compute."""


@dataclass(frozen=True)
class Boundary:
    """What a layer does at the border of a loop or a conditional.

    Attributes:
        scope: the loop's or the conditional's name.
        role: which of its borders.
        kind: of limits and outputs.
        axis: along which a tensor is taken apart or put together.
        backward: from the end on.
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
        name: TensorRT's name of it.
        kind: its ``LayerType``, as a word.
        inputs: an ``ITensor`` for each input; None for an optional one that is missing. Whoever reads the layer may
            replace them: they are what ``compute`` is called with.
        outputs: an ``ITensor`` for each output.
        compute: from the inputs' values to the outputs'.
        boundary: set for layers of loops and conditionals.
    """

    name: str
    kind: str
    inputs: list[Any]
    outputs: list[Any]
    compute: Compute = list
    boundary: Boundary | None = None

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Each output's dtype."""
        return [torch_dtype(output.dtype) for output in self.outputs]


# Reads a layer of the subclass of ILayer that it was registered for: settings and weights are copied now, numbers
# come later. It may change what the Layer says.
Reader = Callable[[Any, Layer], Compute]

READERS: dict[str, tuple[str, Reader]] = {}


def reads(kind: str, subclass: str) -> Callable[[Reader], Reader]:
    """Registers what reads layers of a ``LayerType``; ``subclass`` names the Python class that has its settings."""

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
    """PyTorch's dtype for TensorRT's.

    Raises:
        UnknownLayerError: PyTorch has none.
    """
    if dtype.name not in _DTYPES:
        raise UnknownLayerError(f"no tensors of {dtype} are computed here")
    return _DTYPES[dtype.name]


def axes_of(mask: int) -> tuple[int, ...]:
    """The dimensions whose bits are set."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)


def integers(value: torch.Tensor) -> list[int]:
    """A shape tensor's numbers."""
    return [int(number) for number in value.reshape(-1).tolist()]


def demand(condition: bool, complaint: str) -> None:
    """Raises :class:`NetworkError` with the complaint, unless the condition holds."""
    if not condition:
        raise NetworkError(complaint)


def only(condition: bool, setting: str) -> None:
    """Raises :class:`UnknownLayerError` for a setting that is not computed, unless the condition holds."""
    if not condition:
        raise UnknownLayerError(f"not computed here: {setting}")
