"""Decomposes the logarithm of softmax.

Upstream takes the logarithm of the softmax, which is -inf where the softmax underflows: below about -17 in fp16, and
below about -104 in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """``aten._log_softmax`` from differences to the maximum, with halves computed in fp32 as in PyTorch."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    shifted = wide - wide.amax(dim, keepdim=True)
    result = shifted - shifted.exp().sum(dim, keepdim=True).log()
    return result if half_to_float else result.to(x.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten._log_softmax.default: log_softmax}
