"""Decomposes padding by amounts that vary. Upstream's passes need the amounts as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt


def constant_pad_nd(x: Tensor, pad: Sequence[Size], value: float = 0) -> Any:
    """``aten.constant_pad_nd``: gathers each element by its position, and takes the value outside of the tensor.

    Returns:
        The result; NotImplemented if every amount is a number.
    """
    if all(isinstance(amount, int) for amount in pad):
        return NotImplemented
    for index, (before, behind) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = x.dim() - 1 - index
        if isinstance(before, int) and isinstance(behind, int):
            x = _aten.constant_pad_nd(x, [0, 0] * index + [before, behind], value) if before or behind else x
            continue
        size = x.shape[dim]
        positions = torch.arange(before + size + behind, device=x.device) - before
        inside = (positions >= 0) & (positions < size)
        x = x.index_select(dim, torch.where(inside, positions, 0))
        inside = inside.view([-1 if d == dim else 1 for d in range(x.dim())])
        x = torch.where(inside, x, torch.full([], value, dtype=x.dtype, device=x.device))
    return x


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten.constant_pad_nd.default: constant_pad_nd}
