"""Decomposes running sums. Upstream's converter adds in fp32 whatever the dtype.

:mod:`linux_side.backends.running_sums` computes what is left without a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """``aten.cumsum``: halves in fp32, integers and booleans as int64.

    Returns:
        The result; NotImplemented for tensors that are summed in their own dtype.
    """
    if dtype is not None and x.dtype is not dtype:
        return torch.cumsum(x.to(dtype), dim)
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.cumsum(x.float(), dim).to(x.dtype)
    if x.is_floating_point() or x.is_complex() or x.dtype is torch.int64:
        return NotImplemented
    return torch.cumsum(x.long(), dim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.cumsum.default: cumsum}
