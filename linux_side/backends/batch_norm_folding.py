"""Folds batch norms into the weights of the convolutions before them.

TensorRT-RTX 1.6 folds them too, but where sizes vary its kernels for a single size then compute some networks wrongly,
most often at sizes other than the optimal one. This was seen on a GPU in FastViT, which is right with folded weights.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from linux_side.fx.graph_copy import add_buffer, get_attribute

_aten = torch.ops.aten
_BATCH_NORM = _aten._native_batch_norm_legit_no_training.default
# Indices among the arguments of aten.convolution.
_BIAS, _TRANSPOSED, _GROUPS = 2, 6, 8


class _Pair(NamedTuple):
    """A convolution, and the batch norm that alone reads it.

    Attributes:
        result: the normalized tensor, in the convolution's shape.
        between: the nodes behind the convolution up to the result, in the graph's order.
    """

    convolution: Node
    norm: Node
    result: Node
    between: tuple[Node, ...]

    @property
    def parameters(self) -> tuple[Node | None, ...]:
        """Weight and bias of the convolution; scale, shift, mean and variance of the batch norm."""
        return (*self.convolution.args[1:3], *self.norm.args[1:5])


def fold_batch_norms(partition: GraphModule) -> None:
    """Replaces each convolution with a batch norm behind it, in place, by one convolution with other weights.

    The weights are multiplied in fp64 and rounded once. A pair stays as it is if a weight is no constant, or if the
    weights' dtype does not hold the products: in fp16 they may be too large, or so small that they lose digits.
    """
    for number, pair in enumerate(_pairs(partition.graph)):
        folded = _folded(partition, pair)
        if folded is not None:
            _replace(partition, pair, folded, f"_folded_{number}")
    partition.delete_all_unused_submodules()


def _pairs(graph: torch.fx.Graph) -> list[_Pair]:
    found = []
    for norm in graph.find_nodes(op="call_function", target=_BATCH_NORM):
        source, result = norm.args[0], _only_user(norm)
        if result is None or result.target is not operator.getitem or result.args[1] != 0:
            continue
        between: tuple[Node, ...] = (norm, result)
        squeezed = _only_user(result)
        if squeezed and _is_for_sequences(source, squeezed):
            source, result, between = source.args[0], squeezed, (source, *between, squeezed)
        if source.target is _aten.convolution.default and _only_user(source) is between[0]:
            found.append(_Pair(source, norm, result, between))
    return found


def _is_for_sequences(before: Node, after: Node) -> bool:
    """Returns whether a batch norm is one of ``linux_side.rewrites.normalization``, between two changes of shape."""
    added = before.target is _aten.unsqueeze.default and before.args[1] == -1 and _only_user(before) is not None
    return added and after.target is _aten.squeeze.dim and after.args[1] == -1


def _only_user(node: Node) -> Node | None:
    [user, *others] = node.users or [None]
    return None if others else user


def _folded(partition: GraphModule, pair: _Pair) -> tuple[Tensor, Tensor] | None:
    """Returns the weight and the bias of the one convolution; None if they cannot be computed."""
    if not all(node is None or node.op == "get_attr" for node in pair.parameters):
        return None
    stored: list[Any] = [node and get_attribute(partition, str(node.target)).detach() for node in pair.parameters]
    exactly: list[Any] = [each if each is None else each.double() for each in stored]
    weight, bias, scale, shift, mean, variance = exactly
    factor = (variance + pair.norm.args[-1]).rsqrt()
    if scale is not None:
        factor = factor * scale
    moved = -mean if bias is None else bias - mean
    offset = moved * factor if shift is None else moved * factor + shift
    exact = weight * _by_channel(pair.convolution.args, weight, factor)
    new, offset = exact.to(stored[0].dtype), offset.to(stored[0].dtype)
    return (new, offset) if _is_held(new, exact) and bool(offset.isfinite().all()) else None


def _is_held(rounded: Tensor, exact: Tensor) -> bool:
    """Returns whether rounding is as exact as the dtype is; it is not for infinite or subnormal numbers."""
    return bool((rounded.double() - exact).norm() <= torch.finfo(rounded.dtype).eps * exact.norm())


def _by_channel(args: Sequence[Any], weight: Tensor, factor: Tensor) -> Tensor:
    """Returns a factor of each output channel in a shape that broadcasts with the weight.

    A transposed convolution has the input channels first, and in the second dimension the output channels of a group.
    """
    ones = [1] * (weight.dim() - 2)
    if not args[_TRANSPOSED]:
        return factor.reshape(-1, 1, *ones)
    groups = args[_GROUPS]
    return factor.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).reshape(len(weight), -1, *ones)


def _replace(partition: GraphModule, pair: _Pair, folded: tuple[Tensor, Tensor], name: str) -> None:
    convolution, graph = pair.convolution, partition.graph
    operands = []
    with graph.inserting_before(convolution):
        for kind, value in zip(("weight", "bias"), folded, strict=True):
            operand = graph.get_attr(add_buffer(partition, f"{name}_{kind}", value))
            operand.meta["val"] = convolution.meta["val"].new_empty(value.shape, dtype=value.dtype)
            operands.append(operand)
    unused = pair.parameters
    convolution.args = (convolution.args[0], *operands, *convolution.args[_BIAS + 1 :])
    pair.result.replace_all_uses_with(convolution)
    for node in (*reversed(pair.between), *dict.fromkeys(node for node in unused if node is not None)):
        if not node.users:
            graph.erase_node(node)
