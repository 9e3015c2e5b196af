"""Decomposes ``torch.cdist``, for which TensorRT has no layer, between points of few coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOST = 16
"""The most coordinates. The differences of all pairs take this many times the memory of the distances."""


def cdist(x: Tensor, y: Tensor, p: float, _compute_mode: int | None = None) -> Any:
    """``aten._cdist_forward`` from differences, which are exact for close points, unlike products.

    Args:
        x: (..., n, coordinates).
        y: (..., m, coordinates).
        p: the norm.

    Returns:
        Distances (..., n, m); NotImplemented for more than ``_MOST`` coordinates, which stay in PyTorch.
    """
    coordinates = x.shape[-1]
    if not isinstance(coordinates, int) or not 0 < coordinates <= _MOST:
        return NotImplemented
    apart = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(x.dtype).sum(-1)
    if p == 1:
        return apart.sum(-1)
    if math.isinf(p):
        return apart.amax(-1)
    return (apart * apart).sum(-1).sqrt() if p == 2 else apart.pow(p).sum(-1).pow(1 / p)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten._cdist_forward.default: cdist}
