"""Elementwise operators and views of a lowered partition, for the rewrites of a backend."""

from __future__ import annotations

import operator
from typing import Any

import torch

_aten = torch.ops.aten

# The views after lowering, where _reshape_copy replaces view, reshape and flatten.
VIEWS = {
    _aten._reshape_copy.default, _aten.unsqueeze.default, _aten.squeeze.default, _aten.squeeze.dim,
    _aten.squeeze.dims, _aten.expand.default, _aten.permute.default, _aten.transpose.int, _aten.t.default,
    _aten.slice.Tensor, _aten.select.int, _aten.split.Tensor, _aten.split_with_sizes.default, operator.getitem,
    _aten.clone.default, _aten._to_copy.default,
}  # fmt: skip


def behind_views(node: torch.fx.Node) -> torch.fx.Node:
    """Returns the tensor behind a chain of views."""
    while node.target in VIEWS and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
    return node


def is_floating(node: torch.fx.Node) -> bool:
    """Returns whether a node's value is a tensor of floating-point numbers."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def call(graph: torch.fx.Graph, target: Any, first: torch.fx.Node, second: Any) -> torch.fx.Node:
    """Adds an elementwise operator whose result has the shape and dtype of its first argument."""
    node = graph.call_function(target, (first, second))
    node.meta["val"] = first.meta["val"]
    return node
