"""Joins products of one input with several weights into one product, if the weights are too large to hold twice.

TensorRT makes this fusion itself, for example of the queries, keys and values of attention. It holds the joined weights
beside those of the engine, which for a decoder was 1.7 times all weights. Weights that are joined here, in a file, are
held once. The results are sliced along a dimension of their own, because TensorRT would split the product again if they
were sliced along the product's dimension.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from linux_side.fx.graph_copy import add_buffer, get_attribute

_aten = torch.ops.aten
Join = Callable[[Sequence[torch.Tensor]], torch.Tensor]

# Networks with fewer bytes of weights to join than this are not rewritten.
WORTH = 4 * 2**30
_LEAST = 2**20  # bytes; smaller weights are not joined


def join_siblings(gm: torch.fx.GraphModule, join: Join) -> None:
    """Joins, in place, the products of a partition that share an input.

    Args:
        gm: the partition.
        join: concatenates the rows of several matrices into one matrix that is backed by a file.
    """
    families = [family for family in _families(gm) if len(family) > 1 and _can_be_joined(family)]
    if sum(_weight(gm, node).nbytes for family in families for node in family) < WORTH:
        return
    for index, family in enumerate(families):
        _join(gm, family, f"_joined_weight_{index}", join)
    gm.graph.lint()
    gm.recompile()


def _families(gm: torch.fx.GraphModule) -> list[list[torch.fx.Node]]:
    """Returns the linear layers with constant weights and no bias, grouped by input and dtype."""
    found: dict[tuple[torch.fx.Node, torch.dtype], list[torch.fx.Node]] = defaultdict(list)
    for node in gm.graph.find_nodes(op="call_function", target=_aten.linear.default):
        if len(node.args) != 2 or node.kwargs or node.args[1].op != "get_attr":
            continue  # a bias may also be a keyword
        weight = _weight(gm, node)
        if weight.dim() == 2 and weight.nbytes >= _LEAST:
            found[node.args[0], weight.dtype].append(node)
    return list(found.values())


def _can_be_joined(family: Sequence[torch.fx.Node]) -> bool:
    """Returns whether at most one size varies, because a reshape can infer only one."""
    sizes = family[0].meta["val"].shape
    return sum(not isinstance(size, int) for size in sizes) <= 1


def _weight(gm: torch.fx.GraphModule, node: torch.fx.Node) -> torch.Tensor:
    weight: torch.Tensor = get_attribute(gm, node.args[1].target)
    return weight


def _join(gm: torch.fx.GraphModule, family: Sequence[torch.fx.Node], name: str, join: Join) -> None:
    weights = [_weight(gm, node) for node in family]
    rows = [len(weight) for weight in weights]
    first, unit = family[0], math.gcd(*rows)
    value = first.meta["val"]
    leading = [size if isinstance(size, int) else -1 for size in value.shape[:-1]]
    name = add_buffer(gm, name, join(weights))

    def add(target: torch._ops.OpOverload, args: tuple[object, ...], *sizes: int) -> torch.fx.Node:
        node = gm.graph.call_function(target, args)
        node.meta = {**first.meta, "val": value.new_empty([*value.shape[:-1], *sizes])}
        return node

    with gm.graph.inserting_before(first):
        matrix = gm.graph.get_attr(name)
        matrix.meta["val"] = value.new_empty([sum(rows), weights[0].shape[1]])
        product = add(_aten.linear.default, (first.args[0], matrix), sum(rows))
        units = sum(rows) // unit
        parted = add(_aten._reshape_copy.default, (product, [*leading, units, unit]), units, unit)
        start = 0
        for node, count in zip(family, rows, strict=True):
            end = start + count // unit
            part = add(_aten.slice.Tensor, (parted, len(leading), start, end), end - start, unit)
            whole = add(_aten._reshape_copy.default, (part, [*leading, count]), count)
            whole.meta = {**node.meta, "val": whole.meta["val"]}
            node.replace_all_uses_with(whole)
            start = end
    for node in family:
        weight = node.args[1]
        gm.graph.erase_node(node)
        if isinstance(weight, torch.fx.Node) and not weight.users:
            gm.graph.erase_node(weight)
    gm.delete_all_unused_submodules()
