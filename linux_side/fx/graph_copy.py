"""Copies GraphModules so that the copy can be changed without the original, and reads and sets attributes by path."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch


def copy_graph_module(gm: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Returns a new graph over the same submodules and tensors, with its nodes' metadata copied one level deep."""
    graph = torch.fx.Graph(tracer_cls=gm.graph._tracer_cls)
    values: dict[torch.fx.Node, torch.fx.Node] = {}
    result = graph.graph_copy(gm.graph, values)
    output = graph.output(result)
    output.meta = copy.copy(gm.graph.output_node().meta)
    graph.set_codegen(copy.copy(gm.graph._codegen))
    copied = torch.fx.GraphModule(gm, graph)
    copied.meta = dict(gm.meta)
    _keep_registration(gm, copied)
    return copied


def _keep_registration(source: torch.nn.Module, copied: torch.nn.Module) -> None:
    """Restores how tensors are registered: GraphModule makes all buffers persistent and all plain tensors buffers."""
    for name, _ in list(copied.named_buffers(remove_duplicate=False)):
        owner, leaf = owner_of(source, name)
        if leaf not in owner._buffers:
            set_attribute(copied, name, getattr(owner, leaf), persistent=None)
        elif leaf in owner._non_persistent_buffers_set:
            target, _ = owner_of(copied, name)
            target._non_persistent_buffers_set.add(leaf)


def owner_of(module: torch.nn.Module, path: str) -> tuple[torch.nn.Module, str]:
    """Returns the module that has the attribute at a dotted path, and the attribute's own name."""
    prefix, _, leaf = path.rpartition(".")
    return module.get_submodule(prefix), leaf


def get_attribute(module: torch.nn.Module, path: str) -> Any:
    """Returns the attribute at a dotted path.

    Raises:
        AttributeError: there is none.
    """
    owner, leaf = owner_of(module, path)
    return getattr(owner, leaf)


def has_attribute(module: torch.nn.Module, path: str) -> bool:
    """Returns whether there is an attribute at a dotted path."""
    try:
        get_attribute(module, path)
    except AttributeError:
        return False
    return True


def set_attribute(module: torch.nn.Module, path: str, value: Any, *, persistent: bool | None) -> None:
    """Sets the attribute at a dotted path, and creates missing modules on the way.

    Args:
        module: the outermost module.
        path: the dotted path.
        value: the attribute.
        persistent: whether a buffer is persistent; None for a tensor that is not a buffer.
    """
    *prefix, leaf = path.split(".")
    for name in prefix:
        if not hasattr(module, name):
            module.add_module(name, torch.nn.Module())
        module = getattr(module, name)
    if leaf in module._buffers:
        del module._buffers[leaf]
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter) and persistent is not None:
        module.register_buffer(leaf, value, persistent=persistent)
    else:
        setattr(module, leaf, value)


def add_buffer(module: torch.nn.Module, name: str, value: torch.Tensor) -> str:
    """Registers a tensor that a rewrite made as a buffer of a module.

    Args:
        module: the outermost module.
        name: the wanted name. Its dots become underscores, and a number is appended if the module has the name already.
        value: the tensor.

    Returns:
        The buffer's name.
    """
    wanted = name.replace(".", "_")
    names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(1)))
    free = next(name for name in names if not hasattr(module, name))
    module.register_buffer(free, value)
    return free
