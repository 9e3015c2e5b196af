"""Computes running sums without a loop in networks with attention, where TensorRT-RTX's builder ends the process."""

from __future__ import annotations

import torch

from linux_side.backends.elementwise import call

_aten = torch.ops.aten


def spell_running_sums_out_beside_attention(graph: torch.fx.Graph) -> None:
    """Replaces the loop of ``cumsum`` by shifted additions: by one place, by two, by four, up to the greatest size.

    A size without a known limit keeps its loop.
    """
    if not graph.find_nodes(op="call_function", target=_aten.scaled_dot_product_attention.default):
        return
    for node in graph.find_nodes(op="call_function", target=_aten.cumsum.default):
        source, dim = node.args[:2]
        value = source.meta["val"]
        if (
            not value.dim()
            or not isinstance(size := value.shape[dim], torch.SymInt)
            or value.dtype != node.meta["val"].dtype
        ):
            continue
        greatest = size.node.shape_env.bound_sympy(size.node.expr).upper
        if greatest.is_finite:
            with graph.inserting_before(node):
                node.replace_all_uses_with(_running_sum(graph, source, dim % value.dim(), int(greatest)))
            graph.erase_node(node)


def _running_sum(graph: torch.fx.Graph, source: torch.fx.Node, dim: int, greatest: int) -> torch.fx.Node:
    value = source.meta["val"]
    before, size, after = value.shape[:dim], value.shape[dim], value.shape[dim + 1 :]
    whole = graph.call_function(_aten.sym_size.int, (source, dim))
    whole.meta["val"] = size
    padding = [0, 0] * len(after)  # constant_pad_nd counts from the last dimension
    total, step = source, 1
    while step < greatest:
        moved = graph.call_function(_aten.constant_pad_nd.default, (total, [*padding, step, 0], 0.0))
        moved.meta["val"] = value.new_empty([*before, size + step, *after])
        behind = graph.call_function(_aten.slice.Tensor, (moved, dim, 0, whole))
        behind.meta["val"] = value
        total = call(graph, _aten.add.Tensor, total, behind)
        step *= 2
    return total
