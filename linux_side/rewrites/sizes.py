"""Operators that take a size as a number. Upstream's converters know no number but those of the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt


def repeat(x: Tensor, repeats: Sequence[Size]) -> Any:
    """``aten.repeat`` by a size: each dimension gets another in front of it, which is expanded."""
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
    # A view of what is in order asks no size whether it is 1.
    x = x.clone(memory_format=torch.contiguous_format)
    return x.view([times * size for times, size in zip(repeats, shape, strict=True)])


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def scalar_tensor(value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """``aten.scalar_tensor`` of a size, as a float: upstream's converter leaves it an integer."""
    if not isinstance(value, torch.SymInt) or dtype is None or dtype is torch.int64:
        return NotImplemented
    return torch.scalar_tensor(value, dtype=torch.int64, device=options.get("device")).to(dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.repeat.default: repeat,
    _aten.scalar_tensor.default: scalar_tensor,
}
