"""``--torch-executed-op``: operators that stay in PyTorch because the caller says so."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import torch
from torch.export import ExportedProgram

from linux_side.frontend.supported import torch_executed_names
from linux_side.guards.tracing import no_own_guards, small_sizes_of
from linux_side.upstream import keep_in_torch
from toolchain.errors import UsageError

_NEAREST = 5
_VIEW_WRITES = {"aten.slice_scatter.default", "aten.select_scatter.default", "aten.diagonal_scatter.default"}


def keep_requested_outside(gm: torch.fx.GraphModule, program: ExportedProgram, names: Sequence[str]) -> None:
    """Marks, in a lowered graph, the operators of these names and what lowering made of them.

    Args:
        program: from which the graph was lowered.
        names: as the caller wrote them.

    Raises:
        UsageError: the model does not call one of the operators.
    """
    origins = {node: set(_origins(node)) for node in gm.graph.nodes if node.op == "call_function"}
    called = {str(node.target) for node in program.graph.nodes}.union(*origins.values())
    for asked in torch_executed_names(names):
        name = asked.removeprefix("torch.ops.")
        if name not in called and name not in _functional_operators(program):
            raise _unknown(name, sorted(other for other in called if "." in other))
        for node, of in origins.items():
            if name in of:
                keep_in_torch(node, f"--torch-executed-op {name}")


def _functional_operators(program: ExportedProgram) -> set[str]:
    """The operators that functionalization makes of writes in place, such as ``slice_scatter`` of an assignment.

    Those of core ATen too. A rewrite may have replaced them, or they were computed from constants: there is nothing
    left to keep then. Which of them a write into a view becomes is a matter of torch's release.
    """
    with no_own_guards(program), small_sizes_of(program.range_constraints):
        stages = program.run_decompositions({}), program.run_decompositions()
    found = {str(node.target) for stage in stages for node in stage.graph.nodes}
    return found | _VIEW_WRITES if found & _VIEW_WRITES else found


def _origins(node: torch.fx.Node) -> Iterator[str]:
    """The operator that a node calls, and those of which it was made."""
    yield str(node.target)
    yield str(node.meta.get("original_aten"))
    waiting = list(node.meta.get("from_node", ()))
    for source in waiting:
        yield str(source.target)
        waiting += source.from_node


def _unknown(name: str, called: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(name, called, _NEAREST, 0.5)
    return UsageError(
        f"the model does not call the operator {name}",
        where="--torch-executed-op",
        remedy=f"the nearest that it calls: {', '.join(near)}" if near else f"it calls: {', '.join(called)}",
    )
