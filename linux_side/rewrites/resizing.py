"""Decomposes resizing by a factor that does not divide the size.

With ``scale_factor=0.5`` and 5 rows, PyTorch steps 2 rows at a time, and TensorRT's layer derives steps of 2.5 rows
from the sizes. Such an operator is decomposed, one dimension after the other. The same holds for a fractional factor if
the size varies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from linux_side.rewrites.cubic import far, near
from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
_NEAREST = (_aten.upsample_nearest1d.vec, _aten.upsample_nearest2d.vec, _aten.upsample_nearest3d.vec)
_LINEAR = (_aten.upsample_linear1d.vec, _aten.upsample_bilinear2d.vec, _aten.upsample_trilinear3d.vec)
_CUBIC = (_aten.upsample_bicubic2d.vec,)
RESIZING = (*_NEAREST, *_LINEAR, *_CUBIC)
Size: TypeAlias = Any  # an int or a SymInt
Resize: TypeAlias = Callable[[Tensor, int, Size, float], Tensor]


def keep_inexact_resizing_outside(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch the resizing in a lowered graph that TensorRT's layer would compute differently."""
    for node in gm.graph.nodes:
        if node.target in RESIZING and not is_exact(node):
            keep_in_torch(node, "its factor does not divide the size, or may not")


def is_exact(node: torch.fx.Node) -> bool:
    """Returns whether a node of ``RESIZING`` uses sizes, or factors that give the same steps as the sizes."""
    arguments = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False)) | node.kwargs
    factors = arguments.get("scale_factors")
    return factors is None or bool(arguments.get("align_corners")) or _divide(factors, arguments["input"].meta["val"])


def _divide(factors: Sequence[float], source: Tensor) -> bool:
    return all(_divides(factor, size) for factor, size in zip(factors, source.shape[2:], strict=True))


def _divides(factor: float, size: Size) -> bool:
    if not isinstance(factor, float):
        return False
    exact = Fraction(factor)
    return statically_known_true(size * exact.numerator % exact.denominator == 0)


def _spelled_out(resize: Resize, x: Tensor, output_size: Sequence[Size] | None, factors: Sequence[float] | None) -> Any:
    if factors is None or not all(isinstance(f, float) for f in factors) or _divide(factors, x):
        return NotImplemented
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    for dim, factor in enumerate(factors, start=2):
        wide = resize(wide, dim, torch.sym_int(x.shape[dim] * factor), 1 / factor)
    return wide.to(x.dtype)


def nearest(x: Tensor, output_size: Sequence[Size] | None, scale_factors: Sequence[float] | None) -> Any:
    """``aten.upsample_nearest*`` by factors; NotImplemented if TensorRT's layer computes the same."""
    return _spelled_out(_nearest, x, output_size, scale_factors)


def interpolated(
    resize: Resize,
    x: Tensor,
    output_size: Sequence[Size] | None,
    align_corners: bool,
    scale_factors: Sequence[float] | None,
) -> Any:
    """``aten.upsample_linear1d``, ``bilinear2d``, ``trilinear3d`` and ``bicubic2d`` by factors.

    Args:
        resize: resizes one dimension.
        x: (batch, channels, sizes...).
        output_size: ignored: it follows from the factors.
        align_corners: True is left to TensorRT's layer.
        scale_factors: one for each size.

    Returns:
        The result; NotImplemented if TensorRT's layer computes the same.
    """
    return NotImplemented if align_corners else _spelled_out(resize, x, output_size, scale_factors)


def _nearest(x: Tensor, dim: int, size: Size, step: float) -> Tensor:
    positions = torch.arange(size, device=x.device).float() * step
    return x.index_select(dim, _within(positions.floor().long(), x.shape[dim]))


def _linear(x: Tensor, dim: int, size: Size, step: float) -> Tensor:
    positions = ((torch.arange(size, device=x.device).float() + 0.5) * step - 0.5).clamp(min=0)
    first = _within(positions.floor().long(), x.shape[dim])
    weight = (positions - first.float()).clamp(0, 1)
    return _weighed(x, dim, [(first, 1 - weight), (first + 1, weight)])


_COEFFICIENT = -0.75


def _cubic(x: Tensor, dim: int, size: Size, step: float) -> Tensor:
    positions = (torch.arange(size, device=x.device).float() + 0.5) * step - 0.5
    first = positions.floor()
    behind = positions - first
    distances = [behind + 1, behind, 1 - behind, 2 - behind]
    weights = [weigh(each, _COEFFICIENT) for weigh, each in zip((far, near, near, far), distances, strict=True)]
    return _weighed(x, dim, [(first.long() + offset, weight) for offset, weight in enumerate(weights, -1)])


def _weighed(x: Tensor, dim: int, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
    shape = [-1 if d == dim else 1 for d in range(x.dim())]
    parts = [x.index_select(dim, _within(at, x.shape[dim])) * weight.view(shape) for at, weight in taps]
    return sum(parts[1:], parts[0])


def _within(index: Tensor, size: Size) -> Tensor:
    last = torch.scalar_tensor(size - 1, dtype=torch.int64, device=index.device)
    return torch.minimum(index.clamp(min=0), last)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_NEAREST, nearest),
    **dict.fromkeys(_LINEAR, partial(interpolated, _linear)),
    **dict.fromkeys(_CUBIC, partial(interpolated, _cubic)),
}
