"""Decomposes writes by index.

Upstream's converter of ``index_copy`` writes every row to the first index if the dimension is negative, and accepts no
size that varies. Its ``scatter`` of a number turns the number into fp32, even if the tensor has integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    """``aten.index_copy`` as a scatter.

    Returns:
        The result; NotImplemented if it may be a write into a cache along a dimension that is not negative, which
        upstream's converter can do in place.
    """
    if x.dim() == 0:
        return source.reshape(x.shape).clone()
    front = dim % x.dim()
    is_static = all(isinstance(size, int) for size in (*x.shape, *source.shape))
    if is_static and (source.shape[front] == 1 or (x.dim() == 4 and front == 2)):
        return NotImplemented if dim == front else _aten.index_copy(x, front, index, source)
    shape = [-1 if d == front else 1 for d in range(x.dim())]
    return torch.scatter(x, front, index.view(shape).expand(source.shape), source)


def scatter_value(x: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """``aten.scatter`` of a number, as that of a tensor with the dtype of ``x``."""
    return torch.scatter(x, dim, index, torch.full_like(index, value, dtype=x.dtype))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.index_copy.default: index_copy,
    _aten.scatter.value: scatter_value,
}
