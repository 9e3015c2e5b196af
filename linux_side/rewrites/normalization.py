"""Decomposes batch norm of sequences.

Upstream's converter reshapes to four dimensions and back. TensorRT refuses that if two sizes vary, because a reshape
can infer only one size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def batch_norm(x: Tensor, *parameters: Any) -> Any:
    """``aten._native_batch_norm_legit_no_training`` of ``(N, C, L)`` as that of ``(N, C, L, 1)``, if two sizes vary.

    Returns:
        The result; NotImplemented for any other input.
    """
    if x.dim() != 3 or sum(not isinstance(size, int) for size in x.shape) < 2:
        return NotImplemented
    normalized, mean, deviation = _aten._native_batch_norm_legit_no_training.default(x.unsqueeze(-1), *parameters)
    return normalized.squeeze(-1), mean, deviation


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten._native_batch_norm_legit_no_training.default: batch_norm}
