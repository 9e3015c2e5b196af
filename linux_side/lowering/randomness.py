"""Keeps random numbers in PyTorch, so that they are new at every call.

Torch-TensorRT's converters of ``rand``, ``randn`` and ``randperm`` draw once, while the engine is built.
"""

from __future__ import annotations

import torch

from linux_side.fx.modes import draws

_ATEN = torch.ops.aten


def drawing_operators(gm: torch.fx.GraphModule) -> set[str]:
    """Returns the names of the operators of a graph that draw random numbers, in the form that Torch-TensorRT uses."""
    return {f"torch.ops.{node.target}" for node in gm.graph.nodes if draws(node)}


def make_draws_readable(gm: torch.fx.GraphModule) -> None:
    """Replaces ``uniform(x, from, to)`` by ``rand_like(x) * (to - from) + from``, in place.

    ``torch.export.load`` cannot read an operator with an argument named ``from``, which is a keyword of Python.
    """
    for node in gm.graph.find_nodes(op="call_function", target=_ATEN.uniform.default):
        like, low, high = (*node.args, *(0.0, 1.0)[len(node.args) - 1 :])[:3]
        with gm.graph.inserting_before(node):
            drawn = _call(gm, node, _ATEN.rand_like.default, like)
            spread = _call(gm, node, _ATEN.mul.Tensor, drawn, high - low)
            moved = _call(gm, node, _ATEN.add.Tensor, spread, low)
        node.replace_all_uses_with(moved)
        gm.graph.erase_node(node)
    gm.recompile()


def fill_uninitialized(gm: torch.fx.GraphModule) -> None:
    """Replaces ``empty``, as in ``torch.empty(n).normal_()``, by zeros, in place.

    Otherwise constant folding would write the content of the building process's memory into the artifact.
    """
    for node in gm.graph.find_nodes(op="call_function", target=_ATEN.empty.memory_format):
        options = dict(node.kwargs)
        order = options.pop("memory_format", None)
        with gm.graph.inserting_before(node):
            zeros = _call(gm, node, _ATEN.full.default, node.args[0], 0, **_with_dtype(options, node))
            if order not in (None, torch.contiguous_format):
                zeros = _call(gm, node, _ATEN.clone.default, zeros, memory_format=order)
        node.replace_all_uses_with(zeros)
        gm.graph.erase_node(node)
    gm.recompile()


def _with_dtype(options: dict[str, object], node: torch.fx.Node) -> dict[str, object]:
    return {**options, "dtype": node.meta["val"].dtype}  # without it, `full` takes the dtype of its number


def _call(
    gm: torch.fx.GraphModule, origin: torch.fx.Node, target: object, *args: object, **kwargs: object
) -> torch.fx.Node:
    """Adds a call with the metadata of the node that it replaces."""
    node = gm.graph.call_function(target, args, kwargs)
    node.meta = dict(origin.meta)
    return node
