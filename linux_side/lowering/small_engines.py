"""Keeps a few light operators between pieces of PyTorch in PyTorch, where an engine would cost more than it saves.

The opposite case does not occur: the partitioner leaves nothing in PyTorch that TensorRT takes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from linux_side import upstream
from linux_side.lowering.culprit import lowered_name, operators_of

FEWEST = 5
"""The least number of computing operators for which an engine is worth its call; upstream's default."""
MOST_ELEMENTS = 2**20
"""Up to this many elements, an operator's cost is its launch and not its memory traffic."""

_aten = torch.ops.aten
_HEAVY = {*flop_registry, _aten.linear, _aten.matmul, _aten.scaled_dot_product_attention}
REASON = f"an engine of fewer than {FEWEST} light operators beside it would cost more than it brings"


def keep_small_engines_outside(gm: torch.fx.GraphModule, partitioned: torch.fx.GraphModule) -> bool:
    """Keeps in PyTorch the operators of engines that would cost more than they save.

    Such an engine has fewer than :data:`FEWEST` operators that compute, none of them a convolution, a product or
    attention. It has no tensor of more than :data:`MOST_ELEMENTS` elements, and only PyTorch as its neighbours. If
    every engine is of this kind, all of them stay, because nothing would be left for TensorRT.

    Args:
        gm: the lowered graph, in which the operators are marked.
        partitioned: the same graph, partitioned.

    Returns:
        Whether operators were marked, so that the graph must be partitioned again.
    """
    engines = {node for node in partitioned.graph.nodes if _is_engine(node)}
    neighbours = _neighbours(partitioned)
    small = [
        engine
        for engine in engines
        if neighbours[engine] and engines.isdisjoint(neighbours[engine]) and _is_small(_graph(partitioned, engine))
    ]
    if len(small) == len(engines):
        return False
    nodes = {node.name: node for node in gm.graph.nodes}
    for engine in small:
        for node in operators_of(_graph(partitioned, engine)):
            if name := lowered_name(node):
                upstream.keep_in_torch(nodes[name], REASON)
    return bool(small)


def _neighbours(partitioned: torch.fx.GraphModule) -> dict[torch.fx.Node, set[torch.fx.Node]]:
    """Returns, for each part, the parts that it exchanges tensors with. Sizes do not count: each side computes them."""
    found: dict[torch.fx.Node, set[torch.fx.Node]] = defaultdict(set)
    for call in partitioned.graph.find_nodes(op="call_module"):
        placeholders = _graph(partitioned, call).graph.find_nodes(op="placeholder")
        for argument, placeholder in zip(call.args, placeholders, strict=True):
            source = argument if argument.op == "call_module" or not argument.args else argument.args[0]
            if isinstance(source, torch.fx.Node) and source.op == "call_module" and _elements(placeholder) is not None:
                found[call].add(source)
                found[source].add(call)
    return found


def _is_small(engine: torch.fx.GraphModule) -> bool:
    operators = operators_of(engine)
    light = not any(getattr(node.target, "overloadpacket", None) in _HEAVY for node in operators)
    sizes = [count for node in engine.graph.nodes if (count := _elements(node)) is not None]
    return light and sum(map(_computes, operators)) < FEWEST and max(sizes, default=0) <= MOST_ELEMENTS


def _computes(node: torch.fx.Node) -> bool:
    """Returns whether a node computes something, unlike a size or a view."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and not (
        target.is_view or target in (_aten._reshape_copy.default, _aten.sym_size.int)
    )


def _elements(node: torch.fx.Node) -> int | None:
    """Returns how many elements a tensor has at the example's sizes; None if the node returns no tensor."""
    value = node.meta.get("val")
    return math.prod(map(_at_example, value.shape)) if isinstance(value, torch.Tensor) else None


def _at_example(size: Any) -> int:
    if isinstance(size, int):
        return size
    hint = size.node.hint if size.node.has_hint() else None
    return 1 if hint is None else int(hint)


def _is_engine(node: torch.fx.Node) -> bool:
    return node.op == "call_module" and node.target.startswith(upstream.ENGINE_PREFIX)


def _graph(gm: torch.fx.GraphModule, call: torch.fx.Node) -> torch.fx.GraphModule:
    found = gm.get_submodule(str(call.target))
    if not isinstance(found, torch.fx.GraphModule):
        raise TypeError(f"{call.target} is not a graph")
    return found
