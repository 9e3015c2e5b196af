"""Keeps sizes that depend on data in PyTorch, such as the rows that a mask selects. TensorRT-RTX has no such sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from linux_side.guards.tracing import is_of_data
from linux_side.upstream import keep_in_torch


def keep_data_sizes_in_torch(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch the operators of a lowered graph that take or return a size that depends on data."""
    for node in gm.graph.nodes:
        if node.op == "call_function" and any(map(_has_size_of_data, (node, *node.all_input_nodes))):
            keep_in_torch(node, "a size of it is known only when the data is")


def _has_size_of_data(node: torch.fx.Node) -> bool:
    return any(is_of_data(size.node.expr) for size in _symbolic(node.meta.get("val")))


def _symbolic(value: Any) -> Iterator[Any]:
    for leaf in pytree.tree_leaves(value):
        sizes = leaf.shape if isinstance(leaf, torch.Tensor) else [leaf]
        yield from (size for size in sizes if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)))
