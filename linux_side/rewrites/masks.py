"""Decomposes masked writes of one value. Upstream accepts no mask whose number of elements depends on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """``aten.index_put`` of one value at one mask, as ``where``.

    Returns:
        The result; NotImplemented for integer indices, several masks, or a separate value for each selected element.
    """
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if accumulate or len(given) != 1 or given[0][1].dtype is not torch.bool:
        return NotImplemented
    [(first, mask)] = given
    behind = x.dim() - first - mask.dim()
    rows = values.shape[: max(0, values.dim() - behind)]  # more than one row: one for each selected element
    if first or any(not isinstance(size, int) or size != 1 for size in rows):
        return NotImplemented
    values = values.reshape(values.shape[len(rows) :])
    return torch.where(mask.reshape([*mask.shape, *(1 for _ in range(behind))]), values.to(x.dtype), x)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten.index_put.default: index_put}
