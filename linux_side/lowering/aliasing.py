"""Decides which caches TensorRT may write into in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from linux_side.fx.state import StateChange
from linux_side.fx.values import flat_outputs
from linux_side.upstream import forbid_aliasing


def allow_aliasing_of_state_alone(gm: torch.fx.GraphModule, changes: Sequence[StateChange]) -> list[torch.fx.Node]:
    """Allows TensorRT to write in place only into caches that are state and have no other reader.

    Otherwise it might write into an input of the caller's, or into a tensor that another part of the graph still reads.

    Args:
        gm: the lowered graph, changed in place.
        changes: the graph's state, whose new values are its last outputs.

    Returns:
        The nodes of the allowed writes.
    """
    allowed = []
    _drop_copies_of_new_values(gm, len(changes))
    writes = (torch.ops.aten.index_copy.default, torch.ops.aten.slice_scatter.default)
    results = flat_outputs(gm)
    new_values = dict(zip((c.placeholder for c in changes), results[len(results) - len(changes) :], strict=True))
    for node in gm.graph.nodes:
        if node.target in writes:
            cache = node.args[0]
            if new_values.get(cache.name) is not node or len(cache.users) > 1:
                forbid_aliasing(node)
            else:
                allowed.append(node)
    return allowed


def _drop_copies_of_new_values(gm: torch.fx.GraphModule, count: int) -> None:
    """Outputs new values of state instead of copies of them, which a program has that was lowered before."""
    output = gm.graph.output_node()
    results = flat_outputs(gm)
    for copy in results[len(results) - count :]:
        if copy.target is torch.ops.aten.clone.default and copy.args[0].op == "call_function":
            output.replace_input_with(copy, copy.args[0])
            if not copy.users:
                gm.graph.erase_node(copy)
