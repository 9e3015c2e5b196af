"""Removes tensors without elements, such as a cache that is still empty, from concatenations.

TensorRT accepts no tensor without elements. PyTorch concatenates ``torch.tensor([])`` with tensors of any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """``aten.cat`` of the parts that have elements, in the dtype common to all parts.

    Returns:
        The result; NotImplemented if no part is known to be empty, or every part is.
    """
    kept = [tensor for tensor in tensors if not _adds_nothing(tensor, dim)]
    if not kept or len(kept) == len(tensors):
        return NotImplemented
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    kept = [tensor.to(dtype) for tensor in kept]
    return torch.cat(kept, dim) if len(kept) > 1 else kept[0].clone()


def _adds_nothing(tensor: Tensor, dim: int) -> bool:
    size = tensor.shape[0 if tensor.dim() == 1 else dim] if tensor.dim() else 1
    return isinstance(size, int) and size == 0


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {_aten.cat.default: cat}
