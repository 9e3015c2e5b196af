"""Removes symbolic sizes from the inputs and outputs of a partition.

An engine takes and returns tensors only. If the partitioner passes a size (a ``SymInt``) across the border, it is
computed again on the other side, from the shape of a tensor there.
"""

from __future__ import annotations

import operator

import torch

from linux_side.fx.sizes import compute, sources_of
from linux_side.lowering.culprit import OperatorRefusedError

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def keep_sizes_inside(gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule) -> bool:
    """Removes symbolic sizes from a partition's inputs and outputs, in place.

    Args:
        gm: the partitioned graph.
        call: the node that calls the partition.
        partition: the submodule that it calls.

    Returns:
        Whether the partition is still needed: False if it returned nothing but sizes.

    Raises:
        OperatorRefusedError: an output size depends on data, so that it is known only when the engine runs.
    """
    _compute_inputs_inside(call, partition)
    still_needed = _compute_outputs_outside(gm, call, partition)
    partition.graph.eliminate_dead_code()
    partition.recompile()
    return still_needed


def _compute_inputs_inside(call: torch.fx.Node, partition: torch.fx.GraphModule) -> None:
    placeholders = [node for node in partition.graph.nodes if node.op == "placeholder"]
    first = next(node for node in partition.graph.nodes if node.op != "placeholder")
    for node in placeholders:  # the partitioner leaves some after the first operator
        first.prepend(node)
    sources = sources_of(placeholders)
    arguments = list(call.args)
    for index, node in reversed(list(enumerate(placeholders))):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr.free_symbols <= sources.keys():
            with partition.graph.inserting_before(first):
                computed = compute(partition.graph, value.node.expr, sources)
            node.replace_all_uses_with(computed)
            partition.graph.erase_node(node)
            del arguments[index]
    call.args = tuple(arguments)


def _compute_outputs_outside(gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule) -> bool:
    output = partition.graph.output_node()
    bare = not isinstance(output.args[0], (list, tuple))
    results = [output.args[0]] if bare else list(output.args[0])
    kept = [i for i, r in enumerate(results) if not isinstance(r.meta.get("val"), SYMBOLIC)]
    if len(kept) == len(results):
        return True
    sources = sources_of([node for node in gm.graph.nodes if node.op == "placeholder"])
    for index in sorted(set(range(len(results))) - set(kept)):
        value = results[index].meta["val"]
        unknown = value.node.expr.free_symbols - sources.keys()
        if unknown:
            reason = f"the size {value.node.expr} would be known only when the engine runs"
            raise OperatorRefusedError([results[index]], reason, by_itself=True)
        with gm.graph.inserting_before(call):
            computed = compute(gm.graph, value.node.expr, sources)
        _redirect(gm, call, None if bare else index, computed)
    if not kept:
        gm.graph.erase_node(call)
        return False
    _renumber(gm, call, kept)
    output.args = (results[kept[0]],) if len(kept) == 1 else (tuple(results[i] for i in kept),)
    return True


def _redirect(gm: torch.fx.GraphModule, call: torch.fx.Node, index: int | None, value: torch.fx.Node) -> None:
    if index is None:
        call.replace_all_uses_with(value)
        return
    for user in list(call.users):
        if user.target is operator.getitem and user.args[1] == index:
            user.replace_all_uses_with(value)
            gm.graph.erase_node(user)


def _renumber(gm: torch.fx.GraphModule, call: torch.fx.Node, kept: list[int]) -> None:
    for user in list(call.users):
        position = kept.index(user.args[1])
        if len(kept) == 1:
            user.replace_all_uses_with(call)
            gm.graph.erase_node(user)
        else:
            user.args = (call, position)
