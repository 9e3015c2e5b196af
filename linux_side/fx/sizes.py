"""Computes sizes from the shapes of a graph's inputs.

Torch computes some sizes with floats (``trunc(0.25 * height)``), and cannot save some of its own functions
(``math.ceil``). TensorRT has no converters for these. Its remainder of a negative number is negative, unlike Python's.
"""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod, RoundToInt, ToFloat
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from linux_side.guards.tracing import is_of_data

Sources: TypeAlias = dict[sympy.Symbol, tuple[torch.fx.Node, int]]


def compute_sizes_in_integers(gm: torch.fx.GraphModule) -> None:
    """Replaces, in place, sizes that are computed with floats, remainders or quotients by whole-number formulas.

    A size that has no such formula, or depends on data, stays as it is.
    """
    sources = sources_of(gm.graph.find_nodes(op="placeholder"))
    for node in list(gm.graph.nodes):
        value = node.meta.get("val")
        if not isinstance(value, torch.SymInt) or not _is_difficult(node) or not is_known(value, sources):
            continue
        expression = without_remainders(value.node.expr)
        if not expression.is_number and not expression.has(ToFloat, RoundToInt):
            with gm.graph.inserting_before(node):
                node.replace_all_uses_with(compute(gm.graph, expression, sources))
    gm.graph.eliminate_dead_code()
    gm.recompile()


def is_known(value: Any, sources: Sources) -> bool:
    """Returns whether a symbolic number follows from the shapes of the inputs."""
    return not is_of_data(value.node.expr) and value.node.expr.free_symbols <= sources.keys()


def _is_difficult(node: torch.fx.Node) -> bool:
    of_floats = any(isinstance(argument.meta.get("val"), torch.SymFloat) for argument in node.all_input_nodes)
    return of_floats or node.target is operator.mod or node.target is operator.floordiv


def without_remainders(expression: Any) -> Any:
    """Returns an equal expression without remainders and, where signs are known, without quotients of negatives."""

    def quotient(over: Any, under: Any) -> Any:
        if over.is_nonnegative or not (under.is_Integer and under > 0):
            return FloorDiv(over, under)
        return -FloorDiv(under - 1 - over, under) if (-over).is_nonnegative else FloorDiv(over, under)

    expression = expression.replace(FloorDiv, quotient)
    for remainder in (Mod, PythonMod):
        expression = expression.replace(remainder, lambda over, under: over - under * quotient(over, under))
    return expression


def sources_of(placeholders: list[torch.fx.Node]) -> Sources:
    """Returns, for each symbol, an input tensor and the dimension whose size it is."""
    sources: Sources = {}
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                    sources.setdefault(size.node.expr, (node, dim))
    return sources


def compute(graph: torch.fx.Graph, expression: Any, sources: Sources) -> torch.fx.Node:
    """Adds nodes that compute a symbolic size, at the graph's insertion point; returns the last one."""
    tracer = torch.fx.proxy.GraphAppendingTracer(graph)
    before = set(graph.nodes)
    environment = {}
    for symbol in sorted(expression.free_symbols, key=str):
        tensor, dim = sources[symbol]
        node = graph.call_function(torch.ops.aten.sym_size.int, (tensor, dim))
        node.meta["val"] = tensor.meta["val"].shape[dim]
        environment[symbol] = torch.fx.Proxy(node, tracer)
    result = sympy_interp(PythonReferenceAnalysis, environment, expression)
    for node in graph.nodes:
        if node not in before and "val" not in node.meta:
            arguments = torch.fx.map_arg(node.args, lambda argument: argument.meta["val"])
            node.meta["val"] = node.target(*arguments)
    found: torch.fx.Node = result.node
    return found
