"""Computes running sums without a loop, because no CUDA graph can capture an engine that has one.

``IExecutionContext::enqueueV3`` refuses to enqueue such an engine in a capture. In a network with attention, a loop
along a size that varies also ends TensorRT-RTX's builder with a segmentation fault.
"""

from __future__ import annotations

from typing import Any

import torch

from linux_side.backends.elementwise import call

_aten = torch.ops.aten


def add_running_sums_without_loops(graph: torch.fx.Graph) -> None:
    """Replaces each ``cumsum`` of a partition by shifted additions: by one place, two, four, up to the greatest size.

    Each sum is made from pairs, so it rounds less often than one that adds element by element. A size without a known
    limit keeps its loop; :func:`linux_side.lowering.data_sizes.keep_data_sizes_in_torch` lets none into an engine.
    """
    for node in graph.find_nodes(op="call_function", target=_aten.cumsum.default):
        source, dim = node.args[:2]
        value = source.meta["val"]
        greatest = _greatest(value.shape[dim]) if value.dim() else 1
        if greatest is None:
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(_running_sum(graph, source, dim % max(value.dim(), 1), greatest))
        graph.erase_node(node)


def _greatest(size: Any) -> int | None:
    """Returns the greatest value of a size; None if it has no limit."""
    if isinstance(size, int):
        return size
    greatest = size.node.shape_env.bound_sympy(size.node.expr).upper
    return int(greatest) if greatest.is_finite else None


def _running_sum(graph: torch.fx.Graph, source: torch.fx.Node, dim: int, greatest: int) -> torch.fx.Node:
    value = source.meta["val"]
    if greatest <= 1:  # a copy, because an engine's input cannot be its output
        copied = graph.call_function(_aten.clone.default, (source,))
        copied.meta["val"] = value
        return copied
    size: Any = value.shape[dim]
    if isinstance(size, torch.SymInt):
        size = graph.call_function(_aten.sym_size.int, (source, dim))
        size.meta["val"] = value.shape[dim]
    total, step = source, 1
    while step < greatest:
        total = call(graph, _aten.add.Tensor, total, _moved(graph, total, dim, step, size))
        step *= 2
    return total


def _moved(graph: torch.fx.Graph, total: torch.fx.Node, dim: int, step: int, size: Any) -> torch.fx.Node:
    """Moves a tensor by ``step`` places along a dimension; zeros come in, and what goes beyond ``size`` is dropped."""
    value = total.meta["val"]
    before, after = value.shape[:dim], value.shape[dim + 1 :]
    padding = [0, 0] * len(after)  # constant_pad_nd counts from the last dimension
    padded = graph.call_function(_aten.constant_pad_nd.default, (total, [*padding, step, 0], 0))
    padded.meta["val"] = value.new_empty([*before, value.shape[dim] + step, *after])
    moved = graph.call_function(_aten.slice.Tensor, (padded, dim, 0, size))
    moved.meta["val"] = value
    return moved
