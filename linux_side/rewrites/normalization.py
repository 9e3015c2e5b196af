"""Batch norm of sequences.

Upstream's converter reshapes to a fourth dimension and back, which TensorRT refuses where two sizes vary: a reshape
leaves one size open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def batch_norm(x: Tensor, *parameters: Any) -> Any:
    """``aten._native_batch_norm_legit_no_training``: of ``(N, C, L)`` as of ``(N, C, L, 1)``, where N and L vary.

    Returns:
        NotImplemented where there is nothing to change.
    """
    if x.dim() != 3 or sum(not isinstance(size, int) for size in x.shape) < 2:
        return NotImplemented
    normalized, mean, deviation = _aten._native_batch_norm_legit_no_training.default(x.unsqueeze(-1), *parameters)
    return normalized.squeeze(-1), mean, deviation


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten._native_batch_norm_legit_no_training.default: batch_norm}
