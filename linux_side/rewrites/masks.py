"""Writing one value wherever a mask says so. Upstream takes no mask whose number of elements depends on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """``aten.index_put`` at a mask, of a value that is one for all its elements, as ``where``.

    Returns:
        NotImplemented for indices that are numbers, several masks, or values of their own for each element.
    """
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if accumulate or len(given) != 1 or given[0][1].dtype is not torch.bool:
        return NotImplemented
    [(first, mask)] = given
    behind = x.dim() - first - mask.dim()
    rows = values.shape[: max(0, values.dim() - behind)]  # one would be for each element that the mask chooses
    if first or any(not isinstance(size, int) or size != 1 for size in rows):
        return NotImplemented
    values = values.reshape(values.shape[len(rows) :])
    return torch.where(mask.reshape([*mask.shape, *(1 for _ in range(behind))]), values.to(x.dtype), x)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten.index_put.default: index_put}
