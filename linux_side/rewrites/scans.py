"""Decomposes running sums. Upstream's converter adds in fp32 whatever the dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LONGEST = 4096  # integers are summed through a triangular mask, whose size is the square of the length


def cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """``aten.cumsum``: halves in fp32, integers exactly.

    Returns:
        The result; NotImplemented if upstream's converter is right, and for integers along a dimension that may exceed
        ``_LONGEST``.
    """
    if dtype is not None and x.dtype is not dtype:
        return torch.cumsum(x.to(dtype), dim)
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.cumsum(x.float(), dim).to(x.dtype)
    if x.is_floating_point() or x.is_complex() or x.dim() == 0:
        return NotImplemented
    if x.dtype is torch.bool:  # fp32 counts exactly up to 2**24
        return torch.cumsum(x.float(), dim).long()
    if not _is_short(x.shape[dim]):
        return NotImplemented
    positions = torch.arange(x.shape[dim], device=x.device)
    before = positions[:, None] >= positions
    terms = torch.where(before, x.long().movedim(dim, -1).unsqueeze(-2), 0)
    return terms.sum(-1).movedim(-1, dim)


def _is_short(size: Any) -> bool:
    if isinstance(size, int):
        return size <= _LONGEST
    return bool(size.node.shape_env.bound_sympy(size.node.expr).upper <= _LONGEST)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.cumsum.default: cumsum}
