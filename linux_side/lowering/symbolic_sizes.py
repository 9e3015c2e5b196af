"""Removes symbolic sizes from the inputs and outputs of a partition.

An engine takes and returns tensors only. If the partitioner passes a size (a ``SymInt``) across the border, it is
computed again on the other side, from the shape of a tensor there. A partition without such a tensor gets one as a
further input, of which it reads only the shape. As a tensor of one element, the size would go to the GPU, and
Torch-TensorRT's runtime would copy it back at every call: no CUDA graph can capture that.
"""

from __future__ import annotations

import operator

import torch

from linux_side.fx.sizes import Sources, compute, is_known, sources_of
from linux_side.lowering.culprit import OperatorRefusedError

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
# What an engine takes on every GPU, so that a tensor can be passed for its shape alone.
_TAKEN = (torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)


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
    _compute_inputs_inside(gm, call, partition)
    still_needed = _compute_outputs_outside(gm, call, partition)
    partition.graph.eliminate_dead_code()
    partition.recompile()
    return still_needed


def _compute_inputs_inside(gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule) -> None:
    placeholders = [node for node in partition.graph.nodes if node.op == "placeholder"]
    first = next(node for node in partition.graph.nodes if node.op != "placeholder")
    for node in placeholders:  # the partitioner leaves some after the first operator
        first.prepend(node)
    sources = _all_sources(gm, call, placeholders, first)
    arguments = list(call.args)
    for index, node in reversed(list(enumerate(placeholders))):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and is_known(value, sources):
            with partition.graph.inserting_before(first):
                computed = compute(partition.graph, value.node.expr, sources)
            node.replace_all_uses_with(computed)
            partition.graph.erase_node(node)
            del arguments[index]
    call.args = tuple(arguments)


def _all_sources(
    gm: torch.fx.GraphModule, call: torch.fx.Node, placeholders: list[torch.fx.Node], first: torch.fx.Node
) -> Sources:
    """Returns the sources of a partition's sizes; tensors for those that it lacks become further inputs."""
    sources = sources_of(placeholders)
    nodes = list(gm.graph.nodes)
    outside = sources_of([node for node in nodes[: nodes.index(call)] if _is_taken(node)])
    values = [node.meta.get("val") for node in placeholders]
    known = [v for v in values if isinstance(v, torch.SymInt) and is_known(v, outside | sources)]
    lacking = {symbol for value in known for symbol in value.node.expr.free_symbols} - sources.keys()
    for tensor in dict.fromkeys(outside[symbol][0] for symbol in sorted(lacking, key=str)):
        with first.graph.inserting_before(first):
            placeholder = first.graph.placeholder(tensor.name)
        placeholder.meta = dict(tensor.meta)
        call.args = (*call.args, tensor)
        placeholders.append(placeholder)
    return sources_of(placeholders)


def _is_taken(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in _TAKEN


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
