"""Decomposes pooling that TensorRT's layer does not support.

Upstream's adaptive pooling uses cells of one size, which is wrong if the number of cells does not divide the size, and
supports no size that varies. Its converters of pooling refuse ``ceil_mode`` and ``divisor_override``.
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
_MOST_CELLS = 32  # in one dimension; each cell becomes an operator
_ADAPTIVE = (
    _aten.adaptive_avg_pool1d.default, _aten.adaptive_avg_pool2d.default, _aten.adaptive_avg_pool3d.default,
    _aten._adaptive_avg_pool2d.default, _aten._adaptive_avg_pool3d.default,
)  # fmt: skip
_AVERAGE = {2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}
_MAXIMUM = {2: _aten.max_pool2d.default, 3: _aten.max_pool3d.default}


def keep_adaptive_pooling_outside(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch the adaptive pooling that was not decomposed in a lowered graph."""
    for node in gm.graph.nodes:
        if node.target in _ADAPTIVE:
            keep_in_torch(node, "it averages over many cells, or over a number of cells that varies")


def adaptive_avg_pool(x: Tensor, output_size: Sequence[Size]) -> Any:
    """``aten.adaptive_avg_pool*``, one dimension after the other.

    Returns:
        The result; NotImplemented if the number of cells varies, or is large and does not divide the size.
    """
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
    """``aten.avg_pool1d`` as two-dimensional pooling of one row: TensorRT has no layer of one dimension."""
    return _of_row(_AVERAGE[2], x, kernel, stride, *args)


def max_pool1d(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *args: Any) -> Tensor:
    """``aten.max_pool1d`` as two-dimensional pooling of one row: TensorRT has no layer of one dimension."""
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
    """``aten.avg_pool*`` of an input padded with zeros, scaled by the number of elements that PyTorch divides by.

    Returns:
        The result; NotImplemented if upstream's converter is right, or padding cannot express the windows.
    """
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
    """``aten.max_pool*`` with ``ceil_mode``, of an input padded at its end.

    Returns:
        The result; NotImplemented without ``ceil_mode``, with a dilation, for integers, or if padding cannot express
        the windows.
    """
    windows = _windows(dims, x, kernel_size, stride, padding, ceil_mode)
    if not ceil_mode or windows is None or set(dilation) != {1} or not x.is_floating_point():
        return NotImplemented
    return _pooled(_MAXIMUM[len(windows)], x, windows, -math.inf, pad_first=False)


class _Window:
    """The windows of one dimension.

    Attributes:
        behind: how far the last window reaches beyond the padding, or may reach if the size varies.
        count: how many windows there are, if the padded tensor would give one more; otherwise None.
    """

    def __init__(self, size: Size, kernel: int, stride: int, padding: int, ceil_mode: bool) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.behind, self.count = stride - 1 if ceil_mode else 0, None
        if isinstance(size, int) and ceil_mode:
            count = -(-(size + 2 * padding - kernel) // stride) + 1
            # PyTorch drops a last window that would begin in the padding.
            self.count = count - 1 if (count - 1) * stride >= size + padding else None
            self.behind = max(0, ((self.count or count) - 1) * stride + kernel - size - 2 * padding)

    def shares(self, pooled: Tensor, dim: int, size: Size, include_padding: bool) -> Tensor:
        """Returns the window's size over the number of elements that PyTorch counts, in a shape that broadcasts."""
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
    """Returns each dimension's windows; None if their number depends on a size in a way that padding cannot express."""
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
