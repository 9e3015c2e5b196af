"""Layers that compute over whole dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Compute, Layer, axes_of, demand, integers, only, reads


def _product(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x


def _extreme(x: Tensor, axes: tuple[int, ...], largest: bool) -> Tensor:
    if all(x.shape[axis] for axis in axes):
        return x.amax(axes, keepdim=True) if largest else x.amin(axes, keepdim=True)
    limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
    least, greatest = (-torch.inf, torch.inf) if x.is_floating_point() else (limits.min, limits.max)
    return x.new_full([1 if dim in axes else size for dim, size in enumerate(x.shape)], least if largest else greatest)


_REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "SUM": lambda x, axes: x.sum(axes, keepdim=True, dtype=x.dtype),
    "PROD": _product,
    "MAX": lambda x, axes: _extreme(x, axes, largest=True),
    "MIN": lambda x, axes: _extreme(x, axes, largest=False),
    "AVG": lambda x, axes: x.mean(axes, keepdim=True),
}


@reads("REDUCE", "IReduceLayer")
def reduce(layer: Any, _: Layer) -> Compute:
    name, axes, keep = layer.op.name, axes_of(layer.axes), layer.keep_dims
    only(name in _REDUCTIONS, f"reduction {name}")

    def compute(x: Tensor) -> Tensor:
        demand(x.dtype is not torch.bool, "a reduction of booleans")
        only(name != "AVG" or x.is_floating_point(), f"the average of {x.dtype}")
        result = _REDUCTIONS[name](x, axes)
        return result if keep else result.reshape([n for dim, n in enumerate(result.shape) if dim not in axes])

    return compute


@reads("SOFTMAX", "ISoftMaxLayer")
def softmax(layer: Any, _: Layer) -> Compute:
    axes = axes_of(layer.axes)
    only(len(axes) == 1, f"softmax over axes {axes}")
    return lambda x: x.softmax(axes[0])


@reads("NORMALIZATION", "INormalizationLayer")
def normalization(layer: Any, _: Layer) -> Compute:
    """Computes ``(x - mean) / sqrt(variance + epsilon) * scale + bias``; groups include the channels of each group.

    The first version of the layer has one scale and bias for each group, and the second one for each channel.
    """
    axes, epsilon, groups, per_channel = axes_of(layer.axes), layer.epsilon, layer.num_groups, layer.is_v2

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if groups == 1:
            return normalized(x, axes) * scale + bias
        channels = x.shape[1]
        demand(channels % groups == 0, f"{channels} channels in {groups} groups")
        split = x.reshape(x.shape[0], groups, channels // groups, *x.shape[2:])
        inner = (2, *(axis + 1 for axis in axes if axis > 1))
        result = normalized(split, inner).reshape(x.shape)
        if not per_channel:
            scale, bias = (part.repeat_interleave(channels // groups, dim=1) for part in (scale, bias))
        return result * scale + bias

    def normalized(x: Tensor, dims: tuple[int, ...]) -> Tensor:
        centered = x - x.mean(dims, keepdim=True)
        return centered / ((centered**2).mean(dims, keepdim=True) + epsilon).sqrt()

    return compute


@reads("CUMULATIVE", "ICumulativeLayer")
def cumulative(layer: Any, _: Layer) -> Compute:
    only(layer.op.name == "SUM", f"cumulative {layer.op.name}")
    exclusive, backward = layer.exclusive, layer.reverse

    def compute(x: Tensor, axis: Tensor) -> Tensor:
        (dim,) = integers(axis)
        x = x.flip(dim) if backward else x
        total = x.cumsum(dim, dtype=x.dtype)
        if exclusive:
            total = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), total.narrow(dim, 0, x.shape[dim] - 1)], dim)
        return total.flip(dim) if backward else total

    return compute
