"""Tensors of any content. Upstream asks for the current GPU, which a build has not, and forgets a dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> Tensor:
    """``aten.empty_permuted``: strides mean nothing to TensorRT, and PyTorch's operators take any."""
    return _zeros(size, options)


def empty_strided(size: Sequence[int], stride: Sequence[int], **options: Any) -> Tensor:
    """``aten.empty_strided``."""
    return _zeros(size, options)


def _zeros(size: Sequence[int], options: dict[str, Any]) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"), device=options.get("device"))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.empty_permuted.default: empty_permuted,
    torch.ops.aten.empty_strided.default: empty_strided,
}
