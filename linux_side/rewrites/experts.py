"""Decomposes mixtures of experts as transformers 5 exports them: rows sorted by expert, times their expert's matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def grouped_product(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """``transformers::grouped_mm_fallback``: multiplies all rows by each expert's matrix, with other rows set to zero.

    TensorRT has no product of parts whose sizes depend on data. This one costs as many products as there are experts.

    Args:
        rows: (rows, width), sorted by expert.
        weights: (experts, width, out).
        ends: (experts,), one past each expert's last row.

    Returns:
        (rows, out).
    """
    places = torch.arange(rows.shape[0], device=rows.device)
    result, begin = None, torch.zeros_like(ends[:1])
    for expert in range(weights.shape[0]):
        end = ends[expert : expert + 1]
        own = ((places >= begin) & (places < end)).unsqueeze(-1)
        product = torch.where(own, rows, 0.0) @ weights[expert]
        result, begin = product if result is None else result + product, end
    return rows.new_zeros(rows.shape[0], weights.shape[2]) if result is None else result


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Returns the decomposition if transformers has registered the operator in this process; otherwise none."""
    known = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    return {known.default: grouped_product} if known is not None else {}
