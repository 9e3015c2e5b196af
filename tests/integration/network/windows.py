"""Layers that move a window: convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.integration.network.layers import Compute, Layer, demand, only, reads
from tests.integration.network.weights import copied

Sides = list[tuple[int, int]]


def _sides(layer: Any) -> Sides:
    return list(zip(layer.pre_padding, layer.post_padding, strict=True))


def _padding(
    mode: str, sides: Sides, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]
) -> tuple[Sides, list[int]]:
    """Returns the padding at each side of each dimension, and how far the last window exceeds the padded end.

    Args:
        windows: the extent of a window, dilation included.
    """
    hanging = [0] * len(sizes)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, window, stride in zip(sizes, windows, strides, strict=True):
            both = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
            small, large = both // 2, both - both // 2
            sides.append((small, large) if mode == "SAME_UPPER" else (large, small))
    elif mode == "EXPLICIT_ROUND_UP":
        for dim, (size, side, window, stride) in enumerate(zip(sizes, sides, windows, strides, strict=True)):
            hanging[dim] = -(size + sum(side) - window) % stride
    else:
        only(mode == "EXPLICIT_ROUND_DOWN", f"padding mode {mode}")
    return sides, hanging


def _padded(x: Tensor, sides: Sides, value: float = 0.0) -> Tensor:
    return F.pad(x, [amount for side in reversed(sides) for amount in side], value=value)


def _more(sides: Sides, hanging: Sequence[int]) -> Sides:
    return [(before, after + more) for (before, after), more in zip(sides, hanging, strict=True)]


def _reaches(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]


@reads("CONVOLUTION", "IConvolutionLayer")
def convolution(layer: Any, _: Layer) -> Compute:
    """Computes a correlation. Kernel and bias are weights, or the second and third input."""
    maps, groups, mode = layer.num_output_maps, layer.num_groups, layer.padding_mode.name
    size, stride, dilation = list(layer.kernel_size_nd), list(layer.stride_nd), list(layer.dilation_nd)
    explicit, weights, fixed_bias = _sides(layer), copied(layer.kernel), copied(layer.bias)
    apply = {2: F.conv2d, 3: F.conv3d}[len(size)]

    def compute(x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        kernel = weights.float().reshape(maps, -1, *size) if kernel is None and weights is not None else kernel
        bias = fixed_bias.float() if bias is None and fixed_bias is not None else bias
        sides, hanging = _padding(mode, explicit, x.shape[2:], _reaches(size, dilation), stride)
        return apply(_padded(x, _more(sides, hanging)), kernel, bias, stride, 0, dilation, groups)

    return compute


@reads("DECONVOLUTION", "IDeconvolutionLayer")
def deconvolution(layer: Any, _: Layer) -> Compute:
    """Computes the transpose of a convolution; padding is cropped from the result."""
    groups, mode = layer.num_groups, layer.padding_mode.name
    size, stride, dilation = list(layer.kernel_size_nd), list(layer.stride_nd), list(layer.dilation_nd)
    sides, weights, fixed_bias = _sides(layer), copied(layer.kernel), copied(layer.bias)
    apply = {2: F.conv_transpose2d, 3: F.conv_transpose3d}[len(size)]
    only(mode == "EXPLICIT_ROUND_DOWN", f"padding mode {mode}")

    def compute(x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        kernel = weights.float().reshape(x.shape[1], -1, *size) if kernel is None and weights is not None else kernel
        bias = fixed_bias.float() if bias is None and fixed_bias is not None else bias
        whole = apply(x, kernel, None, stride, 0, 0, groups, dilation)
        result = _padded(whole, [(-before, -after) for before, after in sides])
        return result if bias is None else result + bias.reshape(-1, *[1] * len(size))

    return compute


@reads("POOLING", "IPoolingLayer")
def pooling(layer: Any, _: Layer) -> Compute:
    """Pools windows. An average includes padding unless its setting excludes it, and never what exceeds the padding."""
    kind, mode, blend, excludes = (
        layer.type.name, layer.padding_mode.name, layer.blend_factor, layer.average_count_excludes_padding
    )  # fmt: skip
    size, stride, explicit = list(layer.window_size_nd), list(layer.stride_nd), _sides(layer)
    greatest = {2: F.max_pool2d, 3: F.max_pool3d}[len(size)]
    average = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]

    def largest(x: Tensor, sides: Sides) -> Tensor:
        return greatest(_padded(x, sides, -torch.inf), size, stride)

    def mean(x: Tensor, sides: Sides, hanging: Sequence[int]) -> Tensor:
        counted = torch.ones(1, 1, *x.shape[2:])
        counted = counted if excludes else _padded(counted, sides, 1.0)
        counted = _padded(counted, _more(sides if excludes else [(0, 0)] * len(size), hanging))
        total, count = (
            average(part, size, stride, divisor_override=1) for part in (_padded(x, _more(sides, hanging)), counted)
        )
        return total / count

    def compute(x: Tensor) -> Tensor:
        demand(x.ndim == len(size) + 2, f"a window of {len(size)} dimensions over {tuple(x.shape)}")
        sides, hanging = _padding(mode, explicit, x.shape[2:], size, stride)
        if kind == "MAX":
            return largest(x, _more(sides, hanging))
        if kind == "AVERAGE":
            return mean(x, sides, hanging)
        return (1 - blend) * largest(x, _more(sides, hanging)) + blend * mean(x, sides, hanging)

    return compute
