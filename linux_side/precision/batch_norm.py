"""Prepares batch norm in evaluation mode for halves: its scale and shift are computed in fp32 and rounded once.

``(x - mean) / sqrt(var + eps) * weight + bias`` multiplies each channel by one number and adds another. If its five
parameters were rounded separately, a small variance and ``eps`` would vanish in fp16.
"""

from __future__ import annotations

from typing import Any

import torch

_aten = torch.ops.aten
_BATCH_NORM = _aten._native_batch_norm_legit_no_training.default


def settle_batch_norms(graph: torch.fx.Graph) -> None:
    """Gives each batch norm a mean of 0, a variance of 1 and an epsilon of 0, in place, without changing its result."""
    for node in graph.find_nodes(op="call_function", target=_BATCH_NORM):
        data, weight, bias, mean, variance, momentum, epsilon = node.args
        with graph.inserting_before(node):
            new = _Inserter(graph, node.meta)
            scale = new(_aten.rsqrt.default, new(_aten.add.Tensor, variance, epsilon))
            if weight is not None:
                scale = new(_aten.mul.Tensor, weight, scale)
            shift = new(_aten.neg.default, new(_aten.mul.Tensor, mean, scale))
            if bias is not None:
                shift = new(_aten.add.Tensor, bias, shift)
            zero, one = new(_aten.zeros_like.default, mean), new(_aten.ones_like.default, variance)
        node.args = (data, scale, shift, zero, one, momentum, 0.0)


class _Inserter:
    """Adds operators whose value has the shape and dtype of their first argument, with the batch norm's metadata."""

    def __init__(self, graph: torch.fx.Graph, meta: dict[str, Any]) -> None:
        self._graph, self._meta = graph, meta

    def __call__(self, target: Any, *args: Any) -> torch.fx.Node:
        node = self._graph.call_function(target, args)
        node.meta = {**self._meta, "val": args[0].meta["val"]}
        return node
