"""Decomposes antialiased resizing, which Torch-TensorRT does not convert, into two products with matrices of weights.

Such a resize is separable: each output row is a weighted mean of input rows, and each output column of input columns.
The weights depend only on the sizes. For fixed sizes the matrices are constants; otherwise the engine computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from linux_side.rewrites.cubic import far, near

_aten = torch.ops.aten
Size: TypeAlias = Any  # an int or a SymInt
Filter: TypeAlias = Callable[[Tensor], Tensor]

_COEFFICIENT = -0.5


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    inner, outer = near(distance, _COEFFICIENT), far(distance, _COEFFICIENT)
    return torch.where(distance < 1, inner, torch.where(distance < 2, outer, 0.0))


def antialiased(
    filter_: Filter,
    x: Tensor,
    output_size: Sequence[Size],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """``aten._upsample_bilinear2d_aa`` and ``aten._upsample_bicubic2d_aa``, of ``(N, C, H, W)``.

    Args:
        filter_: returns the weight of an input element, given its distance in steps.
        x: the image; halves are computed in fp32.
        output_size: height and width of the result.
        align_corners: whether the outermost elements keep their places.
        scales_h: output rows for each input row; None to derive the factor from the sizes.
        scales_w: output columns for each input column; None as for ``scales_h``.

    Returns:
        The result; NotImplemented for bytes, which PyTorch rounds in its own way.
    """
    if not x.is_floating_point():
        return NotImplemented
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if not _is_same(output_size[1], x.shape[3]):
        wide = torch.matmul(wide, _weights(filter_, wide, 3, output_size[1], align_corners, scales_w).t())
    if not _is_same(output_size[0], x.shape[2]):
        wide = torch.matmul(_weights(filter_, wide, 2, output_size[0], align_corners, scales_h), wide)
    return x.clone() if wide is x else wide.to(x.dtype)


def _is_same(size: Size, before: Size) -> bool:
    """Returns whether two fixed sizes are equal. PyTorch then keeps the elements, whatever the factor."""
    return isinstance(size, int) and isinstance(before, int) and size == before


def _weights(filter_: Filter, x: Tensor, dim: int, size: Size, align_corners: bool, factor: float | None) -> Tensor:
    """Returns the weights of one dimension, ``(size, x.shape[dim])``; each row has the sum 1."""

    def number(value: Any) -> Tensor:
        return torch.scalar_tensor(value, dtype=x.dtype, device=x.device)

    def middles(count: Size) -> Tensor:
        return torch.arange(count, device=x.device).to(x.dtype) + 0.5

    if align_corners:
        steps = number(size - 1)
        step = number(x.shape[dim] - 1) / steps.clamp(min=1) * steps.clamp(max=1)  # zero for a single element
    elif factor:
        step = number(1 / factor)
    else:
        step = number(x.shape[dim]) / number(size)
    distance = (middles(x.shape[dim]) - (middles(size) * step)[:, None]).abs() / step.clamp(min=1)
    weights = filter_(distance)
    return weights / weights.sum(1, keepdim=True)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten._upsample_bilinear2d_aa.default: partial(antialiased, _triangle),
    _aten._upsample_bicubic2d_aa.default: partial(antialiased, _cubic),
}
