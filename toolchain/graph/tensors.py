"""Reads torch's lists of the tensors that it saved in an artifact's entries."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from toolchain.graph.values import ELEMENT_SIZES, SCALAR_TYPES


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and where its elements are in its entry.

    Attributes:
        entry: the entry that holds its storage.
        dtype: the manifest's name of its dtype.
        shape: its sizes.
        strides: its strides, in elements.
        offset: where its first element is, in elements.
    """

    entry: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The size of its elements, in bytes."""
        return prod(self.shape) * ELEMENT_SIZES[self.dtype]

    @property
    def in_order(self) -> bool:
        """Whether its elements are in C order, from the start of the entry."""
        order, step = [], 1
        for size in reversed(self.shape):
            order.append(step)
            step *= size
        pairs = zip(self.shape, self.strides, reversed(order), strict=True)
        return self.offset == 0 and all(size == 1 or stride == wanted for size, stride, wanted in pairs)


def stored_tensors(document: Any, entry: str) -> dict[str, StoredTensor]:
    """Returns the tensors of a parsed list, by their names in torch.

    Args:
        document: the list.
        entry: the name of the list's own entry.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: torch does not write such a list.
    """
    folder = entry.rpartition("/")[0]
    return {name: _stored(f"{folder}/{payload['path_name']}", payload) for name, payload in document["config"].items()}


def _stored(entry: str, payload: dict[str, Any]) -> StoredTensor:
    meta = payload["tensor_meta"]
    tensor = StoredTensor(
        entry=entry,
        dtype=SCALAR_TYPES[meta["dtype"]],
        shape=tuple(int(size["as_int"]) for size in meta["sizes"]),
        strides=tuple(int(stride["as_int"]) for stride in meta["strides"]),
        offset=int(meta["storage_offset"]["as_int"]),
    )
    if min((*tensor.shape, *tensor.strides, tensor.offset), default=0) < 0:
        raise ValueError(f"a size of {entry} is negative")
    return tensor
