"""Pooling that TensorRT's layer does not do.

Upstream's adaptive pooling takes cells of one size, which is wrong where the number of cells does not divide the size,
and none of a size that varies. Its converters of pooling refuse ``ceil_mode`` and ``divisor_override``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt
_MOST_CELLS = 32  # in one dimension, each of which is an operator
_ADAPTIVE = (
    _aten.adaptive_avg_pool1d.default, _aten.adaptive_avg_pool2d.default, _aten.adaptive_avg_pool3d.default,
    _aten._adaptive_avg_pool2d.default, _aten._adaptive_avg_pool3d.default,
)  # fmt: skip
_AVERAGE = {2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}
_MAXIMUM = {2: _aten.max_pool2d.default, 3: _aten.max_pool3d.default}


def keep_adaptive_pooling_outside(gm: torch.fx.GraphModule) -> None:
    """Marks, in a lowered graph, the adaptive pooling that was not spelled out."""
    for node in gm.graph.nodes:
        if node.target in _ADAPTIVE:
            keep_in_torch(node, "it averages over many cells, or as many as a size says")


def adaptive_avg_pool(x: Tensor, output_size: Sequence[Size]) -> Any:
    """``aten.adaptive_avg_pool*``: one dimension after the other, as all cells of a row have the same rows."""
    first = x.dim() - len(output_size)
    cells = {dim: count for dim, count in enumerate(output_size, first) if not _same(count, x.shape[dim])}
    if not all(isinstance(count, int) for count in cells.values()):
        return NotImplemented
    whole = [dim for dim, count in cells.items() if count == 1]
    parted = {dim: count for dim, count in cells.items() if count != 1}
    if any(count > _MOST_CELLS and not _divides(count, x.shape[dim]) for dim, count in parted.items()):
        return NotImplemented
    if whole:
        x = x.mean(whole, keepdim=True)
    for dim, count in parted.items():
        x = _averages(x, dim, count)
    return x if cells else x.clone()


def _averages(x: Tensor, dim: int, count: int) -> Tensor:
    size = x.shape[dim]
    if _divides(count, size):
        parts = x.reshape([*x.shape[:dim], count, size // count, *x.shape[dim + 1 :]])
        return parts.mean(dim + 1)
    bounds = [(cell * size // count, ((cell + 1) * size + count - 1) // count) for cell in range(count)]
    return torch.cat([_aten.slice(x, dim, *bound).mean(dim, keepdim=True) for bound in bounds], dim)


def _same(count: Size, size: Size) -> bool:
    return statically_known_true(count == size)


def _divides(count: int, size: Size) -> bool:
    return isinstance(size, int) and count > 0 and size % count == 0


def avg_pool1d(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *args: Any) -> Tensor:
    """``aten.avg_pool1d`` as that of a row: TensorRT has no layer of one dimension."""
    return _of_row(_AVERAGE[2], x, kernel, stride, *args)


def max_pool1d(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *args: Any) -> Tensor:
    """``aten.max_pool1d`` as that of a row."""
    return _of_row(_MAXIMUM[2], x, kernel, stride, *args)


def _of_row(operator: Any, x: Tensor, kernel: Sequence[int], stride: Sequence[int], *args: Any) -> Tensor:
    sizes, others = [argument for argument in args if isinstance(argument, (list, tuple))], args
    rows = [[neutral, *size] for neutral, size in zip((0, 1), sizes, strict=False)]  # of padding, and of dilation
    pooled: Tensor = operator(x.unsqueeze(-2), [1, *kernel], [1, *(stride or kernel)], *rows, *others[len(rows) :])
    return pooled.squeeze(-2)


def avg_pool(
    dims: int,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """``aten.avg_pool*`` of an input that is padded before, and then as PyTorch counts the elements of a window."""
    if not ceil_mode and divisor_override is None:
        return NotImplemented
    windows = _windows(dims, x, kernel_size, stride, padding, ceil_mode)
    if windows is None:
        return NotImplemented
    pooled = _pooled(_AVERAGE[len(windows)], x, windows, 0.0, pad_first=True)
    if divisor_override is not None:
        return pooled * (math.prod(window.kernel for window in windows) / divisor_override)
    for dim, window in enumerate(windows, x.dim() - len(windows)):
        pooled = pooled * window.shares(pooled, dim, x.shape[dim], count_include_pad)
    return pooled


def max_pool(
    dims: int,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """``aten.max_pool*`` of an input that is padded behind."""
    windows = _windows(dims, x, kernel_size, stride, padding, ceil_mode)
    if not ceil_mode or windows is None or set(dilation) != {1} or not x.is_floating_point():
        return NotImplemented
    return _pooled(_MAXIMUM[len(windows)], x, windows, -math.inf, pad_first=False)


class _Window:
    """The windows of one dimension.

    Attributes:
        behind: how far the last one reaches beyond the padding.
        count: how many there are, where they are fewer than the pooled tensor would have; else None.
    """

    def __init__(self, size: Size, kernel: int, stride: int, padding: int, ceil_mode: bool) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.behind, self.count = stride - 1 if ceil_mode else 0, None
        if isinstance(size, int) and ceil_mode:
            count = -(-(size + 2 * padding - kernel) // stride) + 1
            self.count = count - 1 if (count - 1) * stride >= size + padding else None  # it would begin in the padding
            self.behind = max(0, ((self.count or count) - 1) * stride + kernel - size - 2 * padding)

    def shares(self, pooled: Tensor, dim: int, size: Size, include_padding: bool) -> Tensor:
        """The window's size over the number of elements that PyTorch counts, in a shape that broadcasts."""
        device = pooled.device
        first = torch.arange(pooled.shape[dim], device=device) * self.stride - self.padding
        end = torch.scalar_tensor(size + (self.padding if include_padding else 0), dtype=torch.int64, device=device)
        last = torch.minimum(first + self.kernel, end)
        counted = last - (first if include_padding else first.clamp(min=0))
        shares = (self.kernel / counted.float()).to(pooled.dtype)
        return shares.view([-1 if d == dim else 1 for d in range(pooled.dim())])


def _windows(
    dims: int, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool
) -> list[_Window] | None:
    """Each dimension's windows; None where their number depends on a size in a way that padding cannot say."""
    given = (kernel, stride or kernel, padding)
    kernels, strides, paddings = (list(values) * dims if len(values) == 1 else values for values in given)
    parts = list(zip(x.shape[x.dim() - dims :], kernels, strides, paddings, strict=True))
    if ceil_mode and any(not isinstance(size, int) and k < s + p for size, k, s, p in parts):
        return None
    return [_Window(*part, ceil_mode) for part in parts]


def _pooled(operator: Any, x: Tensor, windows: list[_Window], value: float, *, pad_first: bool) -> Tensor:
    amounts = [(window.padding if pad_first else 0, window.behind) for window in reversed(windows)]
    amounts = [(before, behind + before) for before, behind in amounts]
    if any(sum(amount) for amount in amounts):
        x = torch.constant_pad_nd(x, [side for amount in amounts for side in amount], value)
    padding = [0 if pad_first else window.padding for window in windows]
    pooled: Tensor = operator(x, [w.kernel for w in windows], [w.stride for w in windows], padding)
    for dim, window in enumerate(windows, x.dim() - len(windows)):
        if window.count is not None:
            pooled = pooled.narrow(dim, 0, window.count)
    return pooled


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_ADAPTIVE, adaptive_avg_pool),
    _aten.avg_pool1d.default: avg_pool1d,
    _aten.max_pool1d.default: max_pool1d,
    **{operator: partial(avg_pool, dims) for dims, operator in _AVERAGE.items()},
    **{operator: partial(max_pool, dims) for dims, operator in _MAXIMUM.items()},
}
