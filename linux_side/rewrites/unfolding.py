"""Decomposes ``Tensor.unfold``, windows along a dimension, because TensorRT has no strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def unfold(x: Tensor, dimension: int, size: int, step: int) -> Any:
    """``aten.unfold``: a reshape if the windows divide the dimension exactly, otherwise a gather."""
    if x.dim() == 0:
        return NotImplemented
    dim = dimension % x.dim()
    length = x.shape[dim]
    count = (length - size) // step + 1
    rows = x
    if not isinstance(length, int) or step != size or length % size:
        starts = torch.arange(count, device=x.device) * step
        rows = x.index_select(dim, (starts[:, None] + torch.arange(size, device=x.device)).flatten())
    return rows.reshape(*x.shape[:dim], count, size, *x.shape[dim + 1 :]).movedim(dim + 1, -1)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.unfold.default: unfold}
