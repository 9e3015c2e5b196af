"""Keeps the values that a call reads from its state as they were before the call changes that state."""

from __future__ import annotations

import operator
from collections.abc import Set

import torch
from torch.fx import Graph, Node


def keep_old_values(graph: Graph, changes: int) -> None:
    """Copies values that share memory with state or inputs, before the end of the graph writes new values there.

    In an exported graph each value is what it was when it was computed, whatever is written later. The last nodes write
    state one after another: what the first one writes must not reach the second one, nor the caller.

    Args:
        graph: ends in one ``copy_`` for each change, then the output; torch and :mod:`..loader.graph_reader` make such.
        changes: the number of those copies.
    """
    *_, output = graph.nodes
    last = list(graph.nodes)[-1 - changes : -1]
    if not last:
        return
    targets = {_node(copy.args[0]) for copy in last}
    kept: dict[Node, Node] = {}

    def old(value: Node) -> Node:
        if not _sources(value) & targets:
            return value
        if value not in kept:
            with graph.inserting_before(last[0]):
                kept[value] = graph.call_function(torch.ops.aten.clone.default, (value,))
        return kept[value]

    for copy in last:
        target, source = map(_node, copy.args[:2])
        if source is not target:
            copy.args = (target, old(source), *copy.args[2:])
    output.args = torch.fx.map_arg(output.args, lambda value: value if value in last else old(value))


def _node(value: object) -> Node:
    if not isinstance(value, Node):
        raise ValueError(f"a change is of {str(value)[:80]!r}, which is no tensor")
    return value


def _sources(value: Node) -> Set[Node]:
    """Returns the state and the inputs with which a value may share memory."""
    if value.op in ("get_attr", "placeholder"):
        return {value}
    if value.target is operator.getitem or _is_view(value.target):
        return set().union(*map(_sources, value.all_input_nodes))
    return set()


def _is_view(target: object) -> bool:
    return isinstance(target, torch._ops.OpOverload) and any(result.alias_info for result in target._schema.returns)
