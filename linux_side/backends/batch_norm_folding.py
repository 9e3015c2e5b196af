"""Folds batch norms into the weights of the convolutions before them.

TensorRT-RTX 1.6 folds them too, but where sizes vary its kernels for a single size then compute some networks wrongly
at every size but the optimal one. With folded weights the same networks are right.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_BATCH_NORM = _aten._native_batch_norm_legit_no_training.default
# Indices among the arguments of aten.convolution.
_BIAS, _TRANSPOSED, _GROUPS = 2, 6, 8


class _Pair(NamedTuple):
    """A convolution, and the batch norm that alone reads it.

    Attributes:
        result: the normalized tensor.
    """

    convolution: Node
    norm: Node
    result: Node


def fold_batch_norms(partition: GraphModule) -> None:
    """Replaces each convolution with a batch norm behind it, in place, by one convolution with other weights.

    The weights are multiplied in fp64 and rounded once. A pair stays as it is if a weight is no constant, or if a
    rounded weight is not finite.
    """
    for number, pair in enumerate(_pairs(partition.graph)):
        folded = _folded(partition, pair)
        if folded is not None:
            _replace(partition, pair, folded, f"_folded_{number}")
    partition.delete_all_unused_submodules()


def _pairs(graph: torch.fx.Graph) -> list[_Pair]:
    found = []
    for norm in graph.find_nodes(op="call_function", target=_BATCH_NORM):
        convolution, users = norm.args[0], list(norm.users)
        if convolution.target is _aten.convolution.default and len(convolution.users) == 1 and len(users) == 1:
            [result] = users
            if result.target is operator.getitem and result.args[1] == 0:
                found.append(_Pair(convolution, norm, result))
    return found


def _folded(partition: GraphModule, pair: _Pair) -> tuple[Tensor, Tensor] | None:
    """Returns the weight and the bias of the one convolution; None if they cannot be computed."""
    constants = [_constant(partition, node) for node in (*pair.convolution.args[1:3], *pair.norm.args[1:5])]
    weight, bias, scale, shift, mean, variance = constants
    if weight is None or mean is None or variance is None:
        return None
    given = [node for node in (*pair.convolution.args[1:3], *pair.norm.args[1:5]) if node is not None]
    if len(given) != sum(constant is not None for constant in constants):
        return None
    factor = (variance.double() + pair.norm.args[-1]).rsqrt()
    if scale is not None:
        factor = factor * scale.double()
    moved = -mean.double() if bias is None else bias.double() - mean.double()
    offset = moved * factor if shift is None else moved * factor + shift.double()
    new = (weight.double() * _by_channel(pair.convolution.args, weight, factor)).to(weight.dtype)
    offset = offset.to(weight.dtype)
    return (new, offset) if bool(new.isfinite().all()) and bool(offset.isfinite().all()) else None


def _by_channel(args: Sequence[Any], weight: Tensor, factor: Tensor) -> Tensor:
    """Returns a factor of each output channel in a shape that broadcasts with the weight.

    A transposed convolution has the input channels first, and in the second dimension the output channels of a group.
    """
    ones = [1] * (weight.dim() - 2)
    if not args[_TRANSPOSED]:
        return factor.reshape(-1, 1, *ones)
    groups = args[_GROUPS]
    return factor.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).reshape(len(weight), -1, *ones)


def _constant(partition: GraphModule, node: Node | None) -> Tensor | None:
    if node is None or node.op != "get_attr":
        return None
    value: Tensor = operator.attrgetter(str(node.target))(partition)
    return value.detach()


def _replace(partition: GraphModule, pair: _Pair, folded: tuple[Tensor, Tensor], name: str) -> None:
    convolution, graph = pair.convolution, partition.graph
    operands = []
    with graph.inserting_before(convolution):
        for kind, value in zip(("weight", "bias"), folded, strict=True):
            partition.register_buffer(f"{name}_{kind}", value)
            operand = graph.get_attr(f"{name}_{kind}")
            operand.meta["val"] = convolution.meta["val"].new_empty(value.shape, dtype=value.dtype)
            operands.append(operand)
    unused = [*convolution.args[1:3], *pair.norm.args[1:5]]
    convolution.args = (convolution.args[0], *operands, *convolution.args[_BIAS + 1 :])
    pair.result.replace_all_uses_with(convolution)
    for node in (pair.result, pair.norm, *dict.fromkeys(node for node in unused if node is not None)):
        if not node.users:
            graph.erase_node(node)
