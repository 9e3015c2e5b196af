"""Symbolic sizes at the border of a partition.

An engine takes and returns tensors alone. Where the partitioner lets a size (a ``SymInt``) cross the border, it is
computed again on the other side, from the shape of a tensor that is there.
"""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from linux_side.lowering.culprit import OperatorRefusedError

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def keep_sizes_inside(gm: torch.fx.GraphModule, call: torch.fx.Node, partition: torch.fx.GraphModule) -> bool:
    """Takes symbolic sizes out of a partition's inputs and outputs, in place.

    Args:
        gm: the partitioned graph.
        call: the node that calls the partition.
        partition: the submodule that it calls.

    Returns:
        Whether the partition is still needed: False where it returned nothing but sizes.

    Raises:
        OperatorRefusedError: an output size depends on data, so that only the engine could know it.
    """
    _compute_inputs_inside(call, partition)
    still_needed = _compute_outputs_outside(gm, call, partition)
    partition.graph.eliminate_dead_code()
    partition.recompile()
    return still_needed


def _compute_inputs_inside(call: torch.fx.Node, partition: torch.fx.GraphModule) -> None:
    placeholders = [node for node in partition.graph.nodes if node.op == "placeholder"]
    first = next(node for node in partition.graph.nodes if node.op != "placeholder")
    for node in placeholders:  # the partitioner leaves some behind the first operator
        first.prepend(node)
    sources = _sources(placeholders)
    arguments = list(call.args)
    for index, node in reversed(list(enumerate(placeholders))):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr.free_symbols <= sources.keys():
            with partition.graph.inserting_before(first):
                computed = _compute(partition.graph, value, sources)
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
    sources = _sources([node for node in gm.graph.nodes if node.op == "placeholder"])
    for index in sorted(set(range(len(results))) - set(kept)):
        value = results[index].meta["val"]
        unknown = value.node.expr.free_symbols - sources.keys()
        if unknown:
            reason = f"the size {value.node.expr} would be known only when the engine runs"
            raise OperatorRefusedError([results[index]], reason, by_itself=True)
        with gm.graph.inserting_before(call):
            computed = _compute(gm.graph, value, sources)
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


def _sources(placeholders: list[torch.fx.Node]) -> dict[sympy.Symbol, tuple[torch.fx.Node, int]]:
    """For each symbol, a tensor and the dimension that has it as its size."""
    sources: dict[sympy.Symbol, tuple[torch.fx.Node, int]] = {}
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                    sources.setdefault(size.node.expr, (node, dim))
    return sources


def _compute(graph: torch.fx.Graph, value: Any, sources: dict[Any, tuple[torch.fx.Node, int]]) -> torch.fx.Node:
    """Nodes, at the graph's insertion point, that compute a symbolic size."""
    tracer = torch.fx.proxy.GraphAppendingTracer(graph)
    before = set(graph.nodes)
    environment = {}
    for symbol in sorted(value.node.expr.free_symbols, key=str):
        tensor, dim = sources[symbol]
        node = graph.call_function(torch.ops.aten.sym_size.int, (tensor, dim))
        node.meta["val"] = tensor.meta["val"].shape[dim]
        environment[symbol] = torch.fx.Proxy(node, tracer)
    result = sympy_interp(PythonReferenceAnalysis, environment, value.node.expr)
    for node in graph.nodes:
        if node not in before and "val" not in node.meta:
            arguments = torch.fx.map_arg(node.args, lambda argument: argument.meta["val"])
            node.meta["val"] = node.target(*arguments)
    found: torch.fx.Node = result.node
    return found
