"""Decomposes operators that take a size as a number. Upstream's converters only accept constants there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt


def repeat(x: Tensor, repeats: Sequence[Size]) -> Any:
    """``aten.repeat`` by sizes that vary: adds a dimension before each one and expands it.

    Returns:
        The result; NotImplemented if every size is a number.
    """
    shape = [*(1 for _ in range(len(repeats) - x.dim())), *x.shape]
    if all(isinstance(size, int) for size in (*repeats, *shape)):
        return NotImplemented
    if all(
        isinstance(size, int) and size == 1 for size, times in zip(shape, repeats, strict=True) if not _is_one(times)
    ):
        return (
            x.reshape(shape).expand([size if _is_one(r) else r for size, r in zip(shape, repeats, strict=True)]).clone()
        )
    x = x[(None,) * (len(repeats) - x.dim())]
    for dim in range(len(repeats)):
        x = x.unsqueeze(2 * dim)
    x = x.expand([size for pair in zip(repeats, shape, strict=True) for size in pair])
    # A view of contiguous memory adds no guard on whether a size is 1.
    x = x.clone(memory_format=torch.contiguous_format)
    return x.view([times * size for times, size in zip(repeats, shape, strict=True)])


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def scalar_tensor(value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """``aten.scalar_tensor`` of a size in the requested dtype; upstream's converter leaves it an integer.

    Returns:
        The result; NotImplemented if there is no size, or the dtype is int64 or not given.
    """
    if not isinstance(value, torch.SymInt) or dtype is None or dtype is torch.int64:
        return NotImplemented
    return torch.scalar_tensor(value, dtype=torch.int64, device=options.get("device")).to(dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.repeat.default: repeat,
    _aten.scalar_tensor.default: scalar_tensor,
}
