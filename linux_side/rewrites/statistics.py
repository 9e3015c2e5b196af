"""Decomposes variances.

Upstream computes the variance of halves in halves, where a sum of squares above 65,504 overflows fp16. It fixes the
number of elements to the example's, and refuses the variance of one element, which is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)


def var(
    x: Tensor, dims: Sequence[int] | None, correction: float | None = 1, output_dtype: torch.dtype | None = None
) -> Tensor:
    """``prims.var``: the sum of squared differences from the mean, over the number of elements less a correction."""
    dims = list(dims) if dims else list(range(x.dim()))
    wide = x.float() if x.dtype in _HALVES else x
    difference = wide - wide.mean(dims, keepdim=True)
    squares = (difference * difference).sum(dims)
    return (squares / _count(wide, dims, 1 if correction is None else correction)).to(output_dtype or x.dtype)


def _count(x: Tensor, dims: Sequence[int], correction: float) -> float | Tensor:
    """Returns how many elements are reduced, less a correction; if sizes vary, the engine counts them."""
    sizes = [x.shape[dim] for dim in dims]
    if all(isinstance(size, int) for size in sizes):
        return max(math.prod(sizes) - correction, 0)
    return (torch.ones_like(x).sum(dims) - correction).clamp(min=0)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.prims.var.default: var}
