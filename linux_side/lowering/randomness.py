"""Random numbers stay in PyTorch, new at every call.

Torch-TensorRT's converters of ``rand``, ``randn`` and ``randperm`` draw once, while the engine is built.
"""

from __future__ import annotations

import torch

from linux_side.fx.modes import draws

_ATEN = torch.ops.aten


def drawing_operators(gm: torch.fx.GraphModule) -> set[str]:
    """The operators of a graph that draw random numbers, as Torch-TensorRT compares names."""
    return {f"torch.ops.{node.target}" for node in gm.graph.nodes if draws(node)}


def make_draws_readable(gm: torch.fx.GraphModule) -> None:
    """Writes ``uniform(x, from, to)`` as ``rand_like(x) * (to - from) + from``, in place.

    ``torch.export.load`` cannot read an operator with an argument of that name, a keyword of Python.
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
    """Makes ``empty`` zeros, in place: constant folding would bake what is in the builder's memory into the artifact.

    It is what is behind ``torch.empty(n).normal_()``.
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
    return {**options, "dtype": node.meta["val"].dtype}  # full would take the number's own


def _call(
    gm: torch.fx.GraphModule, origin: torch.fx.Node, target: object, *args: object, **kwargs: object
) -> torch.fx.Node:
    """A call with the value and the origin of the node in whose place it comes."""
    node = gm.graph.call_function(target, args, kwargs)
    node.meta = dict(origin.meta)
    return node
