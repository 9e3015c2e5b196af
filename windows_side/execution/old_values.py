"""What a call reads of its state is what was there before: values are copied that a change would change too."""

from __future__ import annotations

import operator
from collections.abc import Set

import torch
from torch.fx import Graph, Node


def keep_old_values(graph: Graph, changes: int) -> None:
    """Copies results that share memory with state or inputs, before the end of the graph writes new values there.

    In an exported graph each value is what it was when it was computed, whatever is written later. Its last nodes write
    state one after another: what the first writes must not be what the second reads, nor what the caller gets.

    Args:
        graph: has a ``copy_`` for each change as its last nodes, torch's own and those of :mod:`..loader.graph_reader`.
        changes: how many.
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
    """The state and the inputs with which a value may share memory."""
    if value.op in ("get_attr", "placeholder"):
        return {value}
    if value.target is operator.getitem or _is_view(value.target):
        return set().union(*map(_sources, value.all_input_nodes))
    return set()


def _is_view(target: object) -> bool:
    return isinstance(target, torch._ops.OpOverload) and any(result.alias_info for result in target._schema.returns)
