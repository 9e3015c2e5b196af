"""Gives grouped convolutions of one engine that look alike to TensorRT-RTX kernels of one size.

Where sizes vary, TensorRT-RTX 1.6 compiles kernels for a call's very sizes. Those of grouped convolutions, depthwise
ones among them, seem to be kept by channels and stride alone: with a second one of as many channels and more or fewer
weights in its kernel, one of the two was computed wrongly in fp32 (docs/benchmarks/gpu.md). This was the case in
MobileNetV4, in GhostNetV2 and in SSDLite's MobileNetV3. Kernels for any size are right.

A smaller kernel gets zeros around it, and the convolution as much more padding: the sums have the same products, and
products with zero beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional as F  # noqa: N812 - its usual name

from linux_side.fx.graph_copy import add_buffer, get_attribute

_aten = torch.ops.aten
# Indices among the arguments of aten.convolution.
_WEIGHT, _STRIDE, _PADDING, _DILATION, _TRANSPOSED, _GROUPS = 1, 3, 4, 5, 6, 8


def unify_grouped_kernels(partition: GraphModule) -> None:
    """Enlarges, in place, the kernels of grouped convolutions that TensorRT-RTX would take for each other.

    Kernels of an even size stay as they are beside odd ones, because zeros fit around both sides only in pairs.
    """
    if not _sizes_vary(partition.graph):
        return
    for alike in _alike(partition.graph).values():
        if len({node.args[_WEIGHT].meta["val"].shape[2:].numel() for node in alike}) == 1:
            continue
        largest = tuple(map(max, zip(*map(_extent, alike), strict=True)))
        for node in alike:
            if node.args[_WEIGHT].meta["val"].shape[2:] != largest:
                _enlarge(partition, node, largest)


def _sizes_vary(graph: torch.fx.Graph) -> bool:
    values = [node.meta["val"] for node in graph.find_nodes(op="placeholder")]
    return any(
        isinstance(value, torch.Tensor) and any(not isinstance(size, int) for size in value.shape) for value in values
    )


def _alike(graph: torch.fx.Graph) -> dict[tuple[object, ...], list[Node]]:
    """Returns the grouped convolutions by channels, dtype, stride, and whether their kernels are odd or even."""
    found: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in _grouped(graph):
        value, parity = node.args[_WEIGHT].meta["val"], tuple(size % 2 for size in _extent(node))
        key = (*value.shape[:2], node.args[_GROUPS], value.dtype, *node.args[_STRIDE], *parity)
        found[key].append(node)
    return found


def _grouped(graph: torch.fx.Graph) -> list[Node]:
    """Returns the grouped convolutions with constant weights that are not transposed."""
    return [
        node
        for node in graph.find_nodes(op="call_function", target=_aten.convolution.default)
        if node.args[_GROUPS] > 1 and not node.args[_TRANSPOSED] and node.args[_WEIGHT].op == "get_attr"
    ]


def _extent(node: Node) -> tuple[int, ...]:
    """Returns how far a kernel reaches in each dimension, its dilation included."""
    sizes = node.args[_WEIGHT].meta["val"].shape[2:]
    return tuple(step * (size - 1) + 1 for size, step in zip(sizes, node.args[_DILATION], strict=True))


def _enlarge(partition: GraphModule, node: Node, extent: Sequence[int]) -> None:
    weight = node.args[_WEIGHT]
    dilated = _dilated(get_attribute(partition, str(weight.target)).detach(), node.args[_DILATION])
    more = [(wanted - size) // 2 for wanted, size in zip(extent, dilated.shape[2:], strict=True)]
    padded = F.pad(dilated, [size for size in reversed(more) for _ in range(2)])
    with partition.graph.inserting_before(node):
        larger = partition.graph.get_attr(add_buffer(partition, f"{weight.target}_enlarged", padded))
        larger.meta = {**weight.meta, "val": weight.meta["val"].new_empty(padded.shape)}
    args = list(node.args)
    args[_WEIGHT] = larger
    args[_PADDING] = [size + added for size, added in zip(args[_PADDING], more, strict=True)]
    args[_DILATION] = [1] * len(more)
    node.args = tuple(args)
    if not weight.users:
        partition.graph.erase_node(weight)


def _dilated(weight: Tensor, dilation: Iterable[int]) -> Tensor:
    """Returns a kernel with the zeros between its elements that a dilation means."""
    for dim, step in enumerate(dilation, 2):
        if step > 1:
            apart = weight.new_zeros(
                [*weight.shape[:dim], step * (weight.shape[dim] - 1) + 1, *weight.shape[dim + 1 :]]
            )
            apart[(slice(None),) * dim + (slice(None, None, step),)] = weight
            weight = apart
    return weight
