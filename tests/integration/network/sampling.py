"""Layers that read between elements: resize and grid sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.integration.network.layers import Compute, Layer, demand, integers, reads


@reads("RESIZE", "IResizeLayer")
def resize(layer: Any, _: Layer) -> Compute:
    """Resizes one dimension after the other: each new element is a weighted sum of old ones around its place."""
    fixed, scales = layer.shape, list(layer.scales)
    mode, transformation = layer.resize_mode.name, layer.coordinate_transformation.name
    upper, rounding = layer.selector_for_single_pixel.name == "UPPER", layer.nearest_rounding.name
    excludes, coefficient = bool(layer.exclude_outside), layer.cubic_coeff

    def compute(x: Tensor, shape: Tensor | None = None) -> Tensor:
        for dim, size in enumerate(sizes(x, shape)):
            if size == x.shape[dim]:
                continue
            demand(x.shape[dim] > 0, "a resize of no elements")
            places = coordinates(size, x.shape[dim])
            x = _combined(x, dim, *taps(places, x.shape[dim]))
        return x

    def sizes(x: Tensor, shape: Tensor | None) -> list[int]:
        if shape is not None:
            return integers(shape)
        if fixed is not None and len(fixed):
            return list(fixed)
        return [math.floor(size * scale) for size, scale in zip(x.shape, scales, strict=True)]

    def coordinates(new: int, old: int) -> Tensor:
        numbers = torch.arange(new, dtype=torch.float64)
        if new == 1 and upper:
            return numbers
        if transformation == "ALIGN_CORNERS":
            return numbers * ((old - 1) / (new - 1)) if new > 1 else numbers
        if transformation == "ASYMMETRIC":
            return numbers * (old / new)
        return (numbers + 0.5) * (old / new) - 0.5

    def taps(places: Tensor, old: int) -> tuple[Tensor, Tensor]:
        if mode == "NEAREST":
            return _rounded(places, rounding).unsqueeze(1).clamp(0, old - 1), torch.ones(len(places), 1)
        first = places.floor()
        fraction = places - first
        if mode == "LINEAR":
            offsets, weights = [0, 1], torch.stack([1 - fraction, fraction], 1)
        else:
            offsets, weights = [-1, 0, 1, 2], _cubic(fraction, coefficient)
        indices = first.long().unsqueeze(1) + torch.tensor(offsets)
        if excludes:
            weights = weights * ((indices >= 0) & (indices < old))
            weights = weights / weights.sum(1, keepdim=True)
        return indices.clamp(0, old - 1), weights

    return compute


def _rounded(places: Tensor, rounding: str) -> Tensor:
    rounded = {
        "HALF_UP": lambda: (places + 0.5).floor(),
        "HALF_DOWN": lambda: (places - 0.5).ceil(),
        "FLOOR": places.floor,
        "CEIL": places.ceil,
    }[rounding]()
    return rounded.long()


def _cubic(fraction: Tensor, a: float) -> Tensor:
    """Returns the weights of the four elements around a place, by the cubic convolution with coefficient ``a``."""
    near, far = torch.stack([fraction, 1 - fraction]), torch.stack([fraction + 1, 2 - fraction])
    near = (a + 2) * near**3 - (a + 3) * near**2 + 1
    far = a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a
    return torch.stack([far[0], near[0], near[1], far[1]], 1)


def _combined(x: Tensor, dim: int, indices: Tensor, weights: Tensor) -> Tensor:
    shape: Sequence[int] = (-1, *[1] * (x.ndim - dim - 1))
    parts = zip(indices.unbind(1), weights.unbind(1), strict=True)
    if indices.shape[1] == 1:  # nearest: any dtype, and infinity stays infinity
        return x.index_select(dim, indices[:, 0])
    return sum((x.index_select(dim, i) * w.to(x.dtype).reshape(shape) for i, w in parts), torch.zeros(()))


@reads("GRID_SAMPLE", "IGridSampleLayer")
def grid_sample(layer: Any, _: Layer) -> Compute:
    """Samples at coordinates from -1 to 1, x before y, as ONNX and PyTorch do."""
    mode = {"LINEAR": "bilinear", "NEAREST": "nearest", "CUBIC": "bicubic"}[layer.interpolation_mode.name]
    outside = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}[layer.sample_mode.name]
    corners = layer.align_corners
    return lambda x, grid: F.grid_sample(x, grid, mode, outside, corners)
