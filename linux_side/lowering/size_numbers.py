"""Replaces floats that are computed from sizes, as in ``x / ((width - 1.0) / 2)``, by tensors.

There are no converters for such floats, and upstream divides sizes as integers. An operator that takes such a float and
is not listed here stays in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch._guards import detect_fake_mode
from torch.utils._sympy.functions import (
    FloatPow,
    FloatTrueDiv,
    IntTrueDiv,
    OpaqueUnaryFn_log,
    OpaqueUnaryFn_sqrt,
    ToFloat,
)

from linux_side.fx.sizes import Sources, compute, is_known, sources_of, without_remainders
from linux_side.upstream import keep_in_torch

_aten = torch.ops.aten
_OF_TENSOR = {
    **{
        getattr(_aten, name).Scalar: getattr(_aten, name).Tensor
        for name in ("add", "sub", "mul", "div", "remainder", "fmod", "eq", "ne", "lt", "le", "gt", "ge")
    },
    _aten.div.Scalar_mode: _aten.div.Tensor_mode,
    _aten.pow.Scalar: _aten.pow.Tensor_Tensor,
    _aten.pow.Tensor_Scalar: _aten.pow.Tensor_Tensor,
    _aten.clamp.default: _aten.clamp.Tensor,
    # Torch decomposes the mean of var_mean into it.
    torch.ops.prims.div.default: _aten.div.Tensor,
}
_TAKE_TENSORS = (*_OF_TENSOR.values(), _aten.maximum.default, _aten.minimum.default)
# Operators that make a tensor of a number, with the number's place among the arguments.
_MADE_OF_NUMBER = {_aten.full.default: 1, _aten.scalar_tensor.default: 0}
_FUNCTIONS: dict[Any, Any] = {
    sympy.Add: _aten.add.Tensor,
    sympy.Mul: _aten.mul.Tensor,
    FloatTrueDiv: _aten.div.Tensor,
    FloatPow: _aten.pow.Tensor_Scalar,
    OpaqueUnaryFn_sqrt: _aten.sqrt.default,
    OpaqueUnaryFn_log: _aten.log.default,
}


def take_floats_as_tensors(gm: torch.fx.GraphModule) -> None:
    """Replaces floats that are computed from sizes by tensors, in place; what remains is kept in PyTorch."""
    sources = sources_of(gm.graph.find_nodes(op="placeholder"))
    for node in list(gm.graph.nodes):
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op == "call_function":
            _take_as_tensors(gm.graph, node, sources)
    gm.graph.eliminate_dead_code()
    for node in gm.graph.nodes:
        if _is_float(node) or any(map(_is_float, node.all_input_nodes)):
            keep_in_torch(node, "it takes or returns a float that is computed from sizes")
    gm.recompile()


def _is_float(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymFloat)


def _take_as_tensors(graph: torch.fx.Graph, node: torch.fx.Node, sources: Sources) -> None:
    target = _OF_TENSOR.get(node.target, node.target)
    numbers = list(filter(_is_float, node.all_input_nodes))
    if target not in (*_TAKE_TENSORS, *_MADE_OF_NUMBER) or not all(is_known(n.meta["val"], sources) for n in numbers):
        return
    for number in numbers:
        with graph.inserting_before(node):
            found = _tensor(graph, number.meta["val"].node.expr, sources, node)
        if not isinstance(found, torch.fx.Node):
            return
        node.replace_input_with(number, found)
    if numbers and target in _MADE_OF_NUMBER:
        with graph.inserting_before(node):
            value = _call(
                graph, _aten._to_copy.default, node.args[_MADE_OF_NUMBER[target]], dtype=node.meta["val"].dtype
            )
            whole = _call(graph, _aten.expand.default, value, node.args[0]) if target is _aten.full.default else value
            node.replace_all_uses_with(whole)
    elif numbers:
        if target in (_aten.clamp.Tensor, _aten.pow.Tensor_Tensor):
            node.args = tuple(_number_as_tensor(graph, node, argument) for argument in node.args)
        node.target = target


def _number_as_tensor(graph: torch.fx.Graph, near: torch.fx.Node, argument: Any) -> Any:
    if not isinstance(argument, (int, float)):
        return argument
    with graph.inserting_before(near):
        return _constant(graph, argument, near)


def _constant(graph: torch.fx.Graph, value: float, near: torch.fx.Node) -> torch.fx.Node:
    return _call(graph, _aten.full.default, [], value, dtype=torch.float32, device=near.meta["val"].device)


def _tensor(graph: torch.fx.Graph, expression: Any, sources: Sources, near: torch.fx.Node) -> Any:
    """Adds nodes that compute a float expression of sizes in fp32.

    Returns:
        The node; the number if the expression is constant; None if it contains an unknown function.
    """
    if expression.is_number:
        return float(expression)
    if isinstance(expression, IntTrueDiv):
        expression = FloatTrueDiv(*map(ToFloat, expression.args))
    if isinstance(expression, ToFloat):
        size = compute(graph, without_remainders(expression.args[0]), sources)
        options = {"dtype": torch.int64, "device": near.meta["val"].device}
        whole = _call(graph, _aten.scalar_tensor.default, size, **options)
        return _call(graph, _aten._to_copy.default, whole, dtype=torch.float32)
    if (target := _FUNCTIONS.get(expression.func)) is None:
        return None
    parts = [_tensor(graph, part, sources, near) for part in expression.args]
    if any(part is None for part in parts):
        return None
    if isinstance(parts[0], float):  # the operators take a tensor first
        parts[0] = _constant(graph, parts[0], near)
    result = _call(graph, target, *parts[:2])
    for part in parts[2:]:
        result = _call(graph, target, result, part)
    return result


def _call(graph: torch.fx.Graph, target: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.fx.Node:
    node = graph.call_function(target, args, kwargs)
    values, keywords = torch.fx.map_arg((args, kwargs), lambda argument: argument.meta["val"])
    mode = detect_fake_mode([n.meta["val"] for n in graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)])
    with mode:
        node.meta["val"] = target(*values, **keywords)
    return node
