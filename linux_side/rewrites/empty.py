"""Decomposes uninitialized tensors. Upstream needs a GPU for them, which a build does not have, and drops the dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> Tensor:
    """``aten.empty_permuted`` as zeros. The layout is ignored: TensorRT has none, and PyTorch's operators take any."""
    return _zeros(size, options)


def empty_strided(size: Sequence[int], stride: Sequence[int], **options: Any) -> Tensor:
    """``aten.empty_strided`` as zeros. The strides are ignored, as in ``empty_permuted``."""
    return _zeros(size, options)


def _zeros(size: Sequence[int], options: dict[str, Any]) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"), device=options.get("device"))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.empty_permuted.default: empty_permuted,
    torch.ops.aten.empty_strided.default: empty_strided,
}
