"""The caller's patterns of module paths and operators that stay in fp32 beyond the rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from linux_side.precision.rules import operator_name
from toolchain.errors import UsageError

EVERYTHING = "*"


class KeepPatterns:
    """Patterns that match nodes of a graph.

    A pattern is a module path (``encoder.layers.*.norm``, including everything inside), an operator (``aten.softmax``,
    ``aten.sum.dim_IntList``), or both (``decoder:aten.add``). ``*`` stands for any characters and ``?`` for one; ``*``
    alone matches everything.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = list(dict.fromkeys(patterns))
        self._matched = set[str]()

    def reason(self, node: torch.fx.Node) -> str | None:
        """Returns why a node stays in fp32, with the pattern that matches it; None if none does."""
        for pattern in self._patterns:
            if _matches(pattern, node):
                self._matched.add(pattern)
                return f"kept by {pattern}"
        return None

    def require_all_matched(self, graph: torch.fx.Graph, where: str) -> None:
        """Requires that each pattern matches something in a graph.

        Args:
            graph: the graph.
            where: the option with the patterns, for the error.

        Raises:
            UsageError: a pattern matches nothing. The message gives the most similar name in the graph.
        """
        for pattern in self._patterns:
            if pattern in self._matched or any(_matches(pattern, node) for node in graph.nodes):
                continue
            near = difflib.get_close_matches(pattern, sorted({*_module_paths(graph), *_operators(graph)}), 1, 0.4)
            raise UsageError(
                f"the pattern {pattern!r} names no module and no operator of this model",
                where=where,
                remedy=(f"do you mean {near[0]!r}? " if near else "")
                + "write a module path such as encoder.layers.3, an operator such as aten.softmax, or MODULE:OPERATOR",
            )


def module_path(node: torch.fx.Node) -> str:
    """Returns the path of the innermost module in which a node was traced; empty for the model itself."""
    return next(reversed(list(_paths(node))), "")


def _matches(pattern: str, node: torch.fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if pattern == EVERYTHING:
        return True
    module, colon, operator = pattern.rpartition(":")
    if not colon and _is_operator(pattern):
        return _is_named(operator, node)
    if colon and not _is_named(operator, node):
        return False
    wanted = module if colon else pattern
    return any(fnmatchcase(path, wanted) for path in _paths(node))


def _is_operator(text: str) -> bool:
    return text.removeprefix("torch.ops.").startswith(("aten.", "prims."))


def _is_named(pattern: str, node: torch.fx.Node) -> bool:
    pattern = pattern.removeprefix("torch.ops.")
    return fnmatchcase(operator_name(node.target), pattern) or fnmatchcase(str(node.target), pattern)


def _paths(node: torch.fx.Node) -> Iterator[str]:
    """Yields the paths of the modules in which a node was traced, from the outermost to the innermost."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    for entry in stack.values():
        if path := str(entry[0]).removeprefix("L['self'].").removeprefix("L['self']"):
            yield path


def _module_paths(graph: torch.fx.Graph) -> set[str]:
    return {path for node in graph.nodes for path in _paths(node)}


def _operators(graph: torch.fx.Graph) -> set[str]:
    return {name for node in graph.nodes if (name := operator_name(node.target))}
