"""``--torch-executed-op``: keeps operators in PyTorch because the caller requests it."""

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
    """Keeps in PyTorch the operators with these names, and the operators that lowering made of them.

    Args:
        gm: the lowered graph.
        program: the program that it was lowered from.
        names: the names as the caller wrote them.

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
    """Returns the names of the program's operators after functionalization, with and without core ATen decompositions.

    An example is ``slice_scatter`` for an assignment. A rewrite or constant folding may have removed such an operator
    from the lowered graph; then there is nothing to keep, and its name is still valid. Which operator a write into a
    view becomes depends on torch's release, so all of them are valid if one is present.
    """
    with no_own_guards(program), small_sizes_of(program.range_constraints):
        stages = program.run_decompositions({}), program.run_decompositions()
    found = {str(node.target) for stage in stages for node in stage.graph.nodes}
    return found | _VIEW_WRITES if found & _VIEW_WRITES else found


def _origins(node: torch.fx.Node) -> Iterator[str]:
    """Yields the names of the operator that a node calls and of those that it was made from."""
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
