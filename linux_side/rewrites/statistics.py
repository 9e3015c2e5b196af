"""Variances and norms.

Upstream computes a variance in halves in halves, where a sum of squares overflows from 65,504 on, fixes the number of
elements to the example's, and refuses the variance of one element, which is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)


def var(
    x: Tensor, dims: Sequence[int] | None, correction: float | None = 1, output_dtype: torch.dtype | None = None
) -> Tensor:
    """``prims.var``: mean of squared differences to the mean, over ``n - correction``."""
    dims = list(dims) if dims else list(range(x.dim()))
    wide = x.float() if x.dtype in _HALVES else x
    count = 1
    for dim in dims:
        count = count * x.shape[dim]
    difference = wide - wide.mean(dims, keepdim=True)
    left = torch.sym_max(count - (1 if correction is None else correction), 0)
    result = (difference * difference).sum(dims) / left
    return result.to(output_dtype or x.dtype)


DECOMPOSITIONS = {torch.ops.prims.var.default: var}
