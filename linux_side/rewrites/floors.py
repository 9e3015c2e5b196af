"""Decomposes floor division of floats so that its results at infinities are PyTorch's.

TensorRT takes the floor of the quotient. PyTorch subtracts the remainder from the dividend first: an infinite dividend
gives NaN, and an infinite divisor of the opposite sign gives -1. One difference remains: a quotient that rounds up to a
whole number (``1.0 // 0.1``) stays that number, where PyTorch gives one less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND

from linux_side.rewrites import dtypes

_aten = torch.ops.aten


def floored(x: Tensor, y: Tensor | float) -> Tensor:
    """``x // y`` of floats, with PyTorch's results at infinities."""
    quotient, undefined = torch.floor(x / y), x.isinf()
    if isinstance(y, Tensor):
        quotient = torch.where(y.isinf() & (x * y < 0), -1.0, quotient)
        undefined = undefined & (y != 0)
    elif isinstance(y, (int, float)) and (not y or math.isinf(y)):
        return floored(x, torch.full((), y, dtype=torch.float32, device=x.device))
    return torch.where(undefined, math.nan, quotient)


def _dividing(operator: Any) -> Callable[..., Any]:
    promoted = dtypes.DECOMPOSITIONS[operator]

    def divided(x: Tensor, y: Any, **mode: Any) -> Any:
        down = mode.get("rounding_mode", "floor") == "floor"
        whole = not dtypes.common_dtype((x, y), KIND.DEFAULT).is_floating_point
        return promoted(x, y, **mode) if whole or not down else floored(x, y)

    return divided


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    operator: _dividing(operator)
    for operator in (
        _aten.div.Tensor_mode, _aten.div.Scalar_mode, _aten.floor_divide.default, _aten.floor_divide.Scalar,
    )
}  # fmt: skip
