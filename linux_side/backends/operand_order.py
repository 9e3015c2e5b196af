"""Puts the result of a convolution before the convolution's own input, where both are the operands of one operator.

In halves, TensorRT-RTX's kernels for any size compute other values for ``x * f(convolution(x))``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import torch

from linux_side.backends.elementwise import VIEWS, behind_views, call, is_floating

_aten = torch.ops.aten

_SWAPPED = {
    _aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.maximum.default, _aten.minimum.default,
}  # fmt: skip
# Operators that PyTorch does not tag as pointwise, but that count as elementwise here.
_UNTAGGED = VIEWS | {_aten._native_batch_norm_legit_no_training.default, _aten.glu.default}


def put_convolutions_first(graph: torch.fx.Graph) -> None:
    """Makes ``f(convolution(x))`` the first operand of a sum, difference, product, maximum or minimum with x.

    f is anything elementwise, also a batch norm, and either operand may be in another shape or dtype. ``x - y`` becomes
    ``-1 * y + x``. The result is the same to the bit. ``x + convolution(x)`` stays, because it was right as it is.

    Wrong on a GPU, with another convolution behind them, were products with the result of a two-dimensional convolution
    or its sigmoid, tanh, ReLU, SiLU or hardsigmoid, and sums with its ReLU or sigmoid. Right were a product with its
    GELU, a sum with the result itself, and kernels of 1x1 and depthwise ones. A difference with its ReLU was wrong too.
    All of these were run in the new order, and were right. Nothing else was run: other differences, factors
    (``alpha``), maxima, minima, other shapes, other convolutions and batch norms are rewritten because they are like
    these.
    ``x / f(convolution(x))`` was not run either, and stays, because no other order of it is exact.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    convolutions: dict[torch.fx.Node, list[torch.fx.Node]] = defaultdict(list)
    combined: dict[torch.fx.Node, list[torch.fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.target is _aten.convolution.default:
            convolutions[behind_views(node.args[0])].append(node)
        elif _can_be_swapped(node):
            combined[behind_views(node.args[0])].append(node)
    swapped = []
    for source, nodes in combined.items():
        made = _made_elementwise(convolutions.get(source, ()), order, order[nodes[-1]])
        swapped += [node for node in nodes if node.args[1] in made and not _adds_a_convolution(node)]
    for node in swapped:
        _swap(graph, node)


def _can_be_swapped(node: torch.fx.Node) -> bool:
    operands = [operand for operand in node.args if isinstance(operand, torch.fx.Node)]
    factor = isinstance(node.kwargs.get("alpha", 1), (int, float))
    return node.target in _SWAPPED and len(operands) == 2 and factor and is_floating(node)


def _adds_a_convolution(node: torch.fx.Node) -> bool:
    return node.target is _aten.add.Tensor and behind_views(node.args[1]).target is _aten.convolution.default


def _swap(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    first, second = node.args
    factor = node.kwargs.get("alpha", 1) * (-1 if node.target is _aten.sub.Tensor else 1)
    if factor != 1:
        with graph.inserting_before(node):
            second = call(graph, _aten.mul.Tensor, second, factor)
        node.target, node.kwargs = _aten.add.Tensor, {}
    node.args = (second, first)


def _made_elementwise(
    sources: Collection[torch.fx.Node], order: Mapping[torch.fx.Node, int], end: int
) -> set[torch.fx.Node]:
    """Returns the sources, and the nodes before place ``end`` that are computed elementwise from one of them.

    Without ``end``, the walks through many sums in a row would take quadratic time.
    """
    found, waiting = set(sources), list(sources)
    while waiting:
        users = waiting.pop().users
        new = [user for user in users if user not in found and order[user] < end and _is_elementwise(user)]
        found.update(new)
        waiting += new
    return found


def _is_elementwise(node: torch.fx.Node) -> bool:
    target = node.target
    return target in _UNTAGGED or (isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags)
