"""Layers that make, cut, join and reshape tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Compute, Layer, demand, integers, only, reads, torch_dtype
from tests.integration.network.weights import copied


@reads("CONSTANT", "IConstantLayer")
def constant(layer: Any, recorded: Layer) -> Compute:
    shape = tuple(layer.shape)
    weights = copied(layer.weights)
    value = torch.empty(shape, dtype=recorded.dtypes[0]) if weights is None else weights.reshape(shape)
    return lambda: value


@reads("SHAPE", "IShapeLayer")
def shape(_: Any, __: Layer) -> Compute:
    return lambda x: torch.tensor(x.shape, dtype=torch.int64)


@reads("SHUFFLE", "IShuffleLayer")
def shuffle(layer: Any, recorded: Layer) -> Compute:
    first, second = list(layer.first_transpose), list(layer.second_transpose)
    fixed = None if layer.reshape_dims is None else list(layer.reshape_dims)
    zero_is_placeholder = layer.zero_is_placeholder

    def compute(x: Tensor, dims: Tensor | None = None) -> Tensor:
        x = x.permute(first[: x.ndim])
        sizes = fixed if dims is None else integers(dims)
        if sizes is not None:
            x = x.reshape(resolved(x, sizes))
        return x.permute(second[: x.ndim])

    def resolved(x: Tensor, sizes: Sequence[int]) -> list[int]:
        if zero_is_placeholder:
            demand(all(size or axis < x.ndim for axis, size in enumerate(sizes)), f"{sizes} of {tuple(x.shape)}")
            sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
        known = math.prod(size for size in sizes if size != -1)
        demand(list(sizes).count(-1) <= 1, f"more than one size to infer in {sizes}")
        if -1 in sizes:
            demand(known > 0 and x.numel() % known == 0, f"{tuple(x.shape)} does not become {sizes}")
            return [x.numel() // known if size == -1 else size for size in sizes]
        demand(known == x.numel(), f"{tuple(x.shape)} does not become {sizes}")
        return list(sizes)

    return compute


@reads("CONCATENATION", "IConcatenationLayer")
def concatenation(layer: Any, _: Layer) -> Compute:
    axis = layer.axis

    def compute(*parts: Tensor) -> Tensor:
        demand(len({part.ndim for part in parts}) == 1, f"parts of shapes {[tuple(part.shape) for part in parts]}")
        return torch.cat(parts, dim=axis)

    return compute


@reads("SQUEEZE", "ISqueezeLayer")
def squeeze(_: Any, __: Layer) -> Compute:
    def compute(x: Tensor, axes: Tensor) -> Tensor:
        dims = [axis % x.ndim for axis in integers(axes)]
        demand(all(x.shape[dim] == 1 for dim in dims), f"{tuple(x.shape)} loses dimensions {dims}")
        return x.reshape([size for dim, size in enumerate(x.shape) if dim not in dims])

    return compute


@reads("UNSQUEEZE", "IUnsqueezeLayer")
def unsqueeze(_: Any, __: Layer) -> Compute:
    def compute(x: Tensor, axes: Tensor) -> Tensor:
        rank = x.ndim + axes.numel()
        dims = {axis % rank for axis in integers(axes)}
        demand(len(dims) == axes.numel(), f"axes {integers(axes)} are not unique")
        sizes = iter(x.shape)
        return x.reshape([1 if dim in dims else next(sizes) for dim in range(rank)])

    return compute


@reads("SLICE", "ISliceLayer")
def slice_(layer: Any, _: Layer) -> Compute:
    fixed = [None if dims is None else list(dims) for dims in (layer.start, layer.shape, layer.stride, layer.axes)]
    mode = layer.mode.name

    def compute(
        x: Tensor,
        start: Tensor | None = None,
        size: Tensor | None = None,
        stride: Tensor | None = None,
        fill: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        given = [
            default if value is None else integers(value)
            for value, default in zip((start, size, stride, axes), fixed, strict=True)
        ]
        starts, sizes, strides = given[:3]
        dims = list(range(x.ndim)) if given[3] is None else [axis % x.ndim for axis in given[3]]
        demand(starts is not None and sizes is not None and strides is not None, "start, size or stride is missing")
        demand(len(starts) == len(sizes) == len(strides) == len(dims), f"{given} of rank {x.ndim}")
        outside = torch.zeros((), dtype=torch.bool)
        for dim, begin, count, step in zip(dims, starts, sizes, strides, strict=True):
            demand(count >= 0, f"a slice of size {count}")
            places = begin + step * torch.arange(count)
            within, missing = _within(places, x.shape[dim], mode)
            x = x.index_select(dim, within) if x.shape[dim] else x.new_zeros(_with_size(x, dim, count))
            outside = outside | missing.reshape(-1, *[1] * (x.ndim - dim - 1))
        if mode == "FILL" and outside.any():
            filling = torch.zeros((), dtype=x.dtype) if fill is None else fill.reshape(())
            x = torch.where(outside, filling, x)
        return x

    return compute


def _with_size(x: Tensor, dim: int, size: int) -> list[int]:
    sizes = list(x.shape)
    sizes[dim] = size
    return sizes


def _within(places: Tensor, length: int, mode: str) -> tuple[Tensor, Tensor]:
    """Returns where each place is read along a dimension, and which places are outside of it."""
    outside = (places < 0) | (places >= length)
    if mode == "STRICT_BOUNDS":
        demand(not outside.any(), f"a slice reads {places[outside].tolist()} of a dimension of {length}")
    if not length:
        demand(mode == "FILL" or not places.numel(), f"{mode} of a dimension without elements")
        return places, outside
    if mode == "WRAP":
        return places % length, outside
    if mode == "REFLECT":
        period = max(2 * (length - 1), 1)  # the axis is the middle of the outermost element
        places = places % period
        return torch.minimum(places, (period - places) % period if length > 1 else places * 0), outside
    return places.clamp(0, length - 1), outside


@reads("FILL", "IFillLayer")
def fill(layer: Any, recorded: Layer) -> Compute:
    """Returns equidistant numbers: ``start`` plus each index times its dimension's ``delta``."""
    only(layer.operation.name == "LINSPACE", f"{layer.operation.name}, which no two runs agree about")
    fixed, alpha, beta = layer.shape, layer.alpha, layer.beta
    dtype = torch_dtype(layer.to_type)

    def compute(dims: Tensor | None = None, start: Tensor | None = None, delta: Tensor | None = None) -> Tensor:
        sizes = list(fixed) if dims is None else integers(dims)
        begin = torch.tensor(alpha, dtype=dtype) if start is None else start.reshape(()).to(dtype)
        steps = torch.tensor([beta], dtype=dtype) if delta is None else delta.reshape(-1).to(dtype)
        demand(len(steps) == len(sizes), f"{len(steps)} distances for {len(sizes)} dimensions")
        value = begin.expand(sizes)
        for dim, (size, step) in enumerate(zip(sizes, steps, strict=True)):
            value = value + (torch.arange(size) * step).to(dtype).reshape(-1, *[1] * (len(sizes) - dim - 1))
        return value

    return compute


@reads("PADDING", "IPaddingLayer")
def padding(layer: Any, _: Layer) -> Compute:
    """Pads the last two dimensions with zeros; a negative number crops."""
    before, after = list(layer.pre_padding_nd), list(layer.post_padding_nd)
    only(len(before) == len(after) == 2, f"padding of {len(before)} dimensions")
    return lambda x: torch.nn.functional.pad(x, (before[1], after[1], before[0], after[0]))


@reads("ASSERTION", "IAssertionLayer")
def assertion(layer: Any, _: Layer) -> Compute:
    message = layer.message

    def compute(condition: Tensor) -> list[Tensor]:
        demand(bool(condition.all()), f"its assertion fails: {message}")
        return []

    return compute
