"""Decomposes splits along a dimension whose size varies, which upstream's converters do not accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt


def split_with_sizes(x: Tensor, sizes: Sequence[Size], dim: int = 0) -> Any:
    """``aten.split_with_sizes`` as slices; NotImplemented if every size is a number."""
    if all(isinstance(size, int) for size in (*sizes, x.shape[dim])):
        return NotImplemented
    parts, first = [], 0
    for size in sizes[:-1]:
        parts.append(_aten.slice(x, dim, first, first + size))
        first = first + size
    return [*parts, _aten.slice(x, dim, first, x.shape[dim])]


def split(x: Tensor, size: Size, dim: int = 0) -> Any:
    """``aten.split`` as slices of one size, of which the last may be smaller. The program fixes their number.

    Returns:
        The parts; NotImplemented if every size is a number.
    """
    length = x.shape[dim]
    if isinstance(size, int) and isinstance(length, int):
        return NotImplemented
    count = int((length + size - 1) // size)
    bounds = [*(index * size for index in range(count)), length]
    return [_aten.slice(x, dim, first, last) for first, last in pairwise(bounds)]


def select(x: Tensor, dim: int, index: Size) -> Any:
    """``aten.select`` at an index that varies, or is counted from the end of a size that varies.

    Returns:
        The result; NotImplemented for any other index.
    """
    if isinstance(index, int) and (index >= 0 or isinstance(x.shape[dim], int)):
        return NotImplemented
    if guard_or_false(index < 0):
        index = index + x.shape[dim]
    return _aten.slice(x, dim, index, index + 1).squeeze(dim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.split_with_sizes.default: split_with_sizes,
    _aten.split.Tensor: split,
    _aten.select.int: select,
}
