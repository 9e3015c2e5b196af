"""Decomposes slices, and writes into a part or the whole of a tensor.

Upstream's ``select_scatter`` writes nothing at index -1, because it takes the slice from -1 to 0. Its ``slice_scatter``
counts an end beyond the tensor. Its converter of ``copy`` does not broadcast. Its converter of ``slice`` makes an empty
slice of a negative bound if the size varies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false, statically_known_true

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt


def copy(destination: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """``aten.copy``: returns the source in the destination's shape and dtype."""
    return _as(source, destination.dtype, list(destination.shape)).clone(memory_format=torch.contiguous_format)


def select_scatter(x: Tensor, source: Tensor, dim: int, index: Size) -> Tensor:
    """``aten.select_scatter``: replaces the slice at one index."""
    size = x.shape[dim]
    index = index + size if guard_or_false(index < 0) else index
    return slice_scatter(x, source.unsqueeze(dim), dim, index, index + 1)


def slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: Size | None = None, end: Size | None = None, step: Size = 1
) -> Any:
    """``aten.slice_scatter``: replaces a slice.

    Returns:
        The result; NotImplemented if it may be a write into a cache whose bounds are within the tensor, which
        upstream's converter can do in place.
    """
    dim = dim % x.dim()
    size = x.shape[dim]
    first, last = _bound(start, 0, size), _bound(end, size, size)
    if step == 1 and statically_known_true(first == 0) and statically_known_true(last == size):
        return _as(source, x.dtype, list(x.shape)).clone()
    if _may_be_cache(x, dim, first, last, step):
        if (dim, first, last) == (dim, start, end):
            return NotImplemented
        return _aten.slice_scatter(x, source, dim, first, last, 1)
    if all(isinstance(bound, int) for bound in (first, last, size)):
        if first >= last:
            return x.clone()
        shape = list(x.shape)
        shape[dim] = len(range(first, last, step))
        source = _as(source, x.dtype, shape)
        if step == 1:
            return _spliced(x, source, dim, first, last)
    return _chosen(x, source.to(x.dtype), dim, first, last, step)


def _as(source: Tensor, dtype: torch.dtype, shape: list[Size]) -> Tensor:
    source = source if source.dtype is dtype else source.to(dtype)
    same = len(shape) == source.dim() and all(
        statically_known_true(a == b) for a, b in zip(source.shape, shape, strict=True)
    )
    return source if same else source.expand(shape)


def _bound(bound: Size | None, default: Size, size: Size) -> Size:
    """Returns a bound of a slice, counted from the front and limited to the tensor."""
    if bound is None:
        return default
    if guard_or_false(bound < 0):
        bound = bound + size
        return bound if statically_known_true(bound >= 0) else torch.sym_max(bound, 0)
    if statically_known_true(bound >= size):
        return size
    return bound if statically_known_true(bound <= size) else torch.sym_min(bound, size)


def _may_be_cache(x: Tensor, dim: int, first: Size, last: Size, step: Size) -> bool:
    """Returns whether upstream's converter may write in place: a static cache of four dimensions, along the third."""
    sizes = (*x.shape, first, last, step)
    return x.dim() == 4 and dim == 2 and all(isinstance(s, int) for s in sizes) and step == 1 and first < last


def _spliced(x: Tensor, source: Tensor, dim: int, first: int, last: int) -> Tensor:
    before = [x.narrow(dim, 0, first)] if first else []
    behind = [x.narrow(dim, last, x.shape[dim] - last)] if last < x.shape[dim] else []
    parts = [*before, source, *behind]
    return torch.cat(parts, dim) if len(parts) > 1 else source.clone()


def _chosen(x: Tensor, source: Tensor, dim: int, first: Size, last: Size, step: Size) -> Tensor:
    """Chooses each element from ``source`` or ``x`` by its position, which also works if sizes vary."""
    positions = torch.arange(x.shape[dim], device=x.device)
    relative = positions if statically_known_true(first == 0) else positions - first
    inside = (relative >= 0) & (positions < last)
    if step != 1:
        inside = inside & (relative % step == 0)
        relative = torch.div(relative, step, rounding_mode="floor")
    if not statically_known_true(source.shape[dim] > 0):  # `index_select` needs at least one row
        source = torch.cat([source, torch.zeros_like(source.sum(dim, keepdim=True))], dim)
    nearest = relative.clamp(min=0).minimum(torch.full_like(relative, 1) * (source.shape[dim] - 1))
    mask = inside.view([-1 if d == dim else 1 for d in range(x.dim())])
    return torch.where(mask, source.index_select(dim, nearest), x)


def slice_tensor(x: Tensor, dim: int = 0, start: Size | None = None, end: Size | None = None, step: Size = 1) -> Any:
    """``aten.slice`` with its bounds counted from the front and limited to the tensor.

    Returns:
        The result; NotImplemented if there is nothing to change, and for bounds that vary.
    """
    size = x.shape[dim]
    if not all(bound is None or isinstance(bound, int) for bound in (start, end)):
        return NotImplemented
    first, last = _bound(start, 0, size), _bound(end, size, size)
    if isinstance(first, int) and isinstance(last, int):
        first, last = max(first, 0), max(last, first, 0)
    if (start or 0) == first and (end is None or end == 2**63 - 1 or (isinstance(last, int) and end == last)):
        return NotImplemented
    return _aten.slice(x, dim, first, last, step)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.slice.Tensor: slice_tensor,
    _aten.copy.default: copy,
    _aten.select_scatter.default: select_scatter,
    _aten.slice_scatter.default: slice_scatter,
}
