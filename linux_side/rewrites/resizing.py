"""Resizing by a factor that does not divide the size.

With ``scale_factor=0.5`` PyTorch steps 2 of 5 rows at a time, and TensorRT's layer goes by the sizes: 2.5 rows. Such an
operator stays in PyTorch, and so does one by a factor that is no whole number where the size varies.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
RESIZING = (
    _aten.upsample_nearest1d.vec, _aten.upsample_nearest2d.vec, _aten.upsample_nearest3d.vec,
    _aten.upsample_linear1d.vec, _aten.upsample_bilinear2d.vec, _aten.upsample_trilinear3d.vec,
    _aten.upsample_bicubic2d.vec,
)  # fmt: skip


def keep_inexact_resizing_outside(gm: torch.fx.GraphModule) -> None:
    """Marks, in a lowered graph, the resizing that must not go into an engine."""
    for node in gm.graph.nodes:
        if node.target in RESIZING and not is_exact(node):
            keep_in_torch(node, "its factor does not divide the size, or may not")


def is_exact(node: torch.fx.Node) -> bool:
    """Whether a node of ``RESIZING`` goes by sizes, or by factors that come to the same."""
    arguments = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False)) | node.kwargs
    factors = arguments.get("scale_factors")
    if factors is None or arguments.get("align_corners"):
        return True
    source = arguments["input"].meta["val"]
    return all(_divides(factor, size) for factor, size in zip(factors, source.shape[2:], strict=True))


def _divides(factor: float, size: Any) -> bool:
    if not isinstance(factor, float):
        return False
    exact = Fraction(factor)
    return statically_known_true(size * exact.numerator % exact.denominator == 0)
