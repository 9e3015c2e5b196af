"""Copies PyTorch submodules (``_run_on_gpu_*``) into the parent graph, with their parameters and buffers."""

from __future__ import annotations

import operator
from typing import Any

import torch

from linux_side.fx.graph_copy import get_attribute, has_attribute, owner_of, set_attribute
from toolchain.names import unique_name


def inline_torch_modules(gm: torch.fx.GraphModule) -> None:
    """Replaces each call of a submodule that is a graph by a copy of that graph."""
    for node in list(gm.graph.nodes):
        if node.op == "call_module" and isinstance(gm.get_submodule(node.target), torch.fx.GraphModule):
            _inline(gm, node, gm.get_submodule(node.target))


def _inline(gm: torch.fx.GraphModule, node: torch.fx.Node, submodule: torch.fx.GraphModule) -> None:
    placeholders = [inner for inner in submodule.graph.nodes if inner.op == "placeholder"]
    values = dict(zip(placeholders, node.args, strict=True))
    with gm.graph.inserting_before(node):
        result = gm.graph.graph_copy(submodule.graph, values)
    names = copy_submodule_attributes(gm, submodule)
    for inner, copied in values.items():
        if inner.op == "get_attr":
            copied.target = names[inner.target]
    _replace_result(gm, node, result)


def _replace_result(gm: torch.fx.GraphModule, node: torch.fx.Node, result: Any) -> None:
    if isinstance(result, (tuple, list)):
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(result[user.args[1]])
                gm.graph.erase_node(user)
    else:
        node.replace_all_uses_with(result)
    gm.graph.erase_node(node)


def copy_submodule_attributes(gm: torch.fx.GraphModule, submodule: torch.fx.GraphModule) -> dict[str, str]:
    """Copies the attributes that the submodule's ``get_attr`` nodes read to the parent, without the submodule's prefix.

    Returns:
        The name in the parent for each name in the submodule. A name that the parent already uses for another value
        gets a number, so that nothing is overwritten.
    """
    names: dict[str, str] = {}
    for node in submodule.graph.nodes:
        if node.op == "get_attr" and node.target not in names:
            names[node.target] = _copy_attribute(gm, submodule, node.target)
    return names


def _copy_attribute(gm: torch.fx.GraphModule, submodule: torch.fx.GraphModule, path: str) -> str:
    value = get_attribute(submodule, path)
    name = unique_name(path, lambda name: has_attribute(gm, name) and get_attribute(gm, name) is not value)
    if has_attribute(gm, name):
        return name
    owner, leaf = owner_of(submodule, path)
    persistent = leaf not in owner._non_persistent_buffers_set if leaf in owner._buffers else None
    set_attribute(gm, name, value, persistent=persistent)
    return name
