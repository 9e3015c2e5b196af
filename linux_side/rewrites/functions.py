"""Decomposes elementwise functions for which upstream's formula is inaccurate or fails at the ends of the range.

Upstream computes ``expm1(x)`` as ``exp(x) - 1`` and ``log1p(x)`` as ``log(1 + x)``, which are zero for small x. It
ignores the factor and the threshold of ``softplus``. Its ``atan2`` is NaN at infinities and at zero. Here halves are
computed in fp32, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _in_fp32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Makes a function compute in fp32 (float64 stays) and round its result to the dtype that PyTorch gives."""

    @wraps(function)
    def computed(*args: Any) -> Tensor:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        dtype = torch.result_type(*tensors) if len(tensors) > 1 else tensors[0].dtype
        if dtype is torch.float64:
            return function(*args)
        result = function(*(arg.float() if isinstance(arg, Tensor) else arg for arg in args))
        return result.to(dtype) if dtype.is_floating_point else result

    return computed


@_in_fp32
def expm1(x: Tensor) -> Tensor:
    """``aten.expm1``, by the identity ``tanh(x / 2) * (exp(x) + 1)``."""
    return torch.tanh(x * 0.5) * (torch.exp(x) + 1)


@_in_fp32
def log1p(x: Tensor) -> Tensor:
    """``aten.log1p`` by Kahan's formula, in which the rounding error of ``1 + x`` cancels."""
    sum_ = 1 + x
    exact = (sum_ == 1) | (sum_ == math.inf)
    return torch.where(exact, x, torch.log(sum_) * (x / torch.where(exact, 1.0, sum_ - 1)))


@_in_fp32
def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """``aten.softplus``: ``log1p(exp(beta * x)) / beta``, and x itself where ``beta * x`` exceeds the threshold."""
    scaled = x * beta
    return torch.where(scaled > threshold, x, torch.log1p(torch.exp(scaled)) / beta)


@_in_fp32
def atan2(y: Tensor, x: Tensor) -> Tensor:
    """``aten.atan2`` from the arctangent of the smaller over the larger coordinate, moved into its octant."""
    across, up = x.abs(), y.abs()
    larger, smaller = torch.maximum(across, up), torch.minimum(across, up)
    even = across == up  # two infinities, or two zeros
    ratio = smaller / torch.where((larger == 0) | even, 1.0, larger)
    angle = torch.atan(torch.where(even, torch.where(larger == 0, 0.0, 1.0), ratio))
    angle = torch.where(up > across, math.pi / 2 - angle, angle)
    angle = torch.where(_is_negative(x), math.pi - angle, angle)
    angle = torch.where(_is_negative(y), -angle, angle)
    return torch.where((x != x) | (y != y), math.nan, angle)


def _is_negative(x: Tensor) -> Tensor:
    """Returns whether the sign bit is set, for zeros too."""
    return (x < 0) | ((x == 0) & (1 / x < 0))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.expm1.default: expm1,
    _aten.log1p.default: log1p,
    _aten.softplus.default: softplus,
    _aten.atan2.default: atan2,
}
