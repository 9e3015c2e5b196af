"""``--torch-executed-op``: operators that stay in PyTorch because the caller says so."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.frontend.supported import torch_executed_names
from linux_side.upstream import keep_in_torch
from toolchain.errors import UsageError

_NEAREST = 5


def keep_requested_outside(gm: torch.fx.GraphModule, program: ExportedProgram, names: Sequence[str]) -> None:
    """Marks, in a lowered graph, what the requested operators became where lowering made others of them.

    Args:
        program: from which the graph was lowered.
        names: as the caller wrote them.

    Raises:
        UsageError: the model does not call one of the operators.
    """
    wanted = {asked.removeprefix("torch.ops."): asked for asked in torch_executed_names(names)}
    nodes = [node for node in gm.graph.nodes if node.op == "call_function"]
    known = {str(operator) for node in nodes for operator in _operators(node)}
    for name in wanted:
        if name not in known:
            raise _unknown(name, nodes, program, known)
    for node in nodes:
        origin = str(node.meta.get("original_aten"))
        if origin in wanted and str(node.target) not in wanted:
            keep_in_torch(node, f"--torch-executed-op {origin}")


def _operators(node: torch.fx.Node) -> list[Any]:
    """The operator that a node calls, and the one of which lowering made it."""
    called = (node.target, node.meta.get("original_aten"))
    return [operator for operator in called if isinstance(operator, torch._ops.OperatorBase)]


def _unknown(name: str, nodes: Sequence[torch.fx.Node], program: ExportedProgram, known: set[str]) -> UsageError:
    calls = [node for node in program.graph.nodes if str(node.target) == name]
    traces = {node.meta.get("stack_trace") for node in calls} - {None}
    became = sorted({str(node.target) for node in nodes if node.meta.get("stack_trace") in traces and _operators(node)})
    if calls:
        return UsageError(
            f"{name} is made of other operators before TensorRT sees the model",
            where="--torch-executed-op",
            remedy=f"name those of them that shall stay in PyTorch: {', '.join(became or sorted(known))}",
        )
    near = difflib.get_close_matches(name, sorted(known), _NEAREST, 0.5)
    return UsageError(
        f"the model does not call the operator {name}",
        where="--torch-executed-op",
        remedy=f"the nearest that it calls: {', '.join(near)}" if near else f"it calls: {', '.join(sorted(known))}",
    )
