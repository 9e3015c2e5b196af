"""The values (fake tensors, symbolic sizes) of a graph's outputs and of calls of submodules."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.utils import _pytree as pytree


def flat_outputs(gm: torch.fx.GraphModule) -> list[Any]:
    """Returns a graph's outputs as a list of nodes or constants."""
    result = gm.graph.output_node().args[0]
    return list(result) if isinstance(result, (list, tuple)) else [result]


def output_values(gm: torch.fx.GraphModule) -> list[Any]:
    """Returns the value of each output of a graph."""
    return [value.meta.get("val") if isinstance(value, torch.fx.Node) else value for value in flat_outputs(gm)]


def is_complex(node: torch.fx.Node) -> bool:
    """Returns whether a node's value is or contains a complex tensor."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in leaves)


def annotate_calls(gm: torch.fx.GraphModule) -> None:
    """Sets the value of each call of a graph submodule, and of each ``getitem`` of one.

    The partitioner does not set them.
    """
    for node in gm.graph.nodes:
        if node.op != "call_module" or not isinstance(gm.get_submodule(node.target), torch.fx.GraphModule):
            continue
        submodule = gm.get_submodule(node.target)
        values = output_values(submodule)
        if not isinstance(submodule.graph.output_node().args[0], (list, tuple)):
            node.meta["val"] = values[0]
            continue
        node.meta["val"] = tuple(values)
        for user in node.users:
            if user.target is operator.getitem:
                user.meta["val"] = values[user.args[1]]
