"""Makes an exported program of a lifted graph: adds its signature, pytree specs and range constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from linux_side.exporter.lift import lift
from linux_side.fx.state import StateChange, state_to_attributes
from linux_side.fx.values import flat_outputs


@dataclass(frozen=True)
class CallStructure:
    """The structure of a call's arguments and results.

    Attributes:
        in_spec: the pytree spec of ``(args, kwargs)``.
        out_spec: the pytree spec of the result.
        argument_names: the names of the arguments of ``forward``, positional ones first; None if unknown.
    """

    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    argument_names: list[str] | None = None


def create_program(
    gm: torch.fx.GraphModule,
    structure: CallStructure,
    range_constraints: Mapping[Any, Any] | None = None,
    original: Mapping[str, InputSpec] | None = None,
) -> ExportedProgram:
    """Lifts a transformed graph and wraps it as an exported program.

    Args:
        gm: a graph of user inputs, operators and ``get_attr`` nodes; it is changed in place.
        structure: the structure of the original program's call.
        range_constraints: the original program's ranges of sizes; None for those of the inputs' shape environment.
        original: the original program's input specs by target.
    """
    ranges = dict(range_constraints) if range_constraints is not None else harvest_ranges(gm)
    changes = state_to_attributes(gm, original or {})
    user_inputs = [InputSpec(InputKind.USER_INPUT, _argument(n), None) for n in _placeholders(gm)]
    lifted = lift(gm, original)
    outputs = _outputs(gm, changes)
    gm.graph.set_codegen(torch.fx.graph.CodeGen())
    gm.graph.lint()
    gm.recompile()
    call = ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=structure.in_spec,
        out_spec=structure.out_spec,
        forward_arg_names=structure.argument_names,
    )
    return ExportedProgram(
        root=gm,
        graph=gm.graph,
        graph_signature=ExportGraphSignature(lifted.specs + user_inputs, outputs),
        state_dict=lifted.state_dict,
        range_constraints=ranges,
        module_call_graph=[ModuleCallEntry("", call)],
        constants=lifted.constants,
    )


def _outputs(gm: torch.fx.GraphModule, changes: Sequence[StateChange]) -> list[OutputSpec]:
    """Moves the new values of state, which are last in the graph, before the user's outputs; returns all specs."""
    values = flat_outputs(gm)
    user, new = values[: len(values) - len(changes)], values[len(values) - len(changes) :]
    gm.graph.output_node().args = ((*new, *user),)
    specs = [OutputSpec(c.kind, _argument(v), c.target) for c, v in zip(changes, new, strict=True)]
    return specs + [OutputSpec(OutputKind.USER_OUTPUT, _argument(value), None) for value in user]


def call_structure(gm: torch.fx.GraphModule) -> CallStructure:
    """Returns the call structure that a compiled module has, or a flat one if it has none."""
    info = getattr(gm.graph._codegen, "pytree_info", None)
    in_spec = getattr(gm, "_in_spec", None) or (info and info.in_spec)
    out_spec = getattr(gm, "_out_spec", None) or (info and info.out_spec)
    count = len(_placeholders(gm))
    if in_spec is None:
        in_spec = pytree.tree_flatten(((0,) * count, {}))[1]
    if out_spec is None:
        out_spec = pytree.tree_flatten((0,) * len(flat_outputs(gm)))[1]
    return CallStructure(in_spec, out_spec)


def harvest_ranges(gm: torch.fx.GraphModule) -> dict[Any, Any]:
    """Returns the range of each symbol in the inputs' shapes, from their shape environment."""
    ranges: dict[Any, Any] = {}
    for node in _placeholders(gm):
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for size in (size for size in sizes if isinstance(size, torch.SymInt)):
            known = size.node.shape_env.var_to_range
            ranges.update({s: known[s] for s in size.node.expr.free_symbols if s in known})
    return ranges


def _placeholders(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in gm.graph.nodes if node.op == "placeholder"]


def _argument(value: Any) -> Any:
    if not isinstance(value, torch.fx.Node):
        return ConstantArgument(name="", value=value)
    kinds: list[tuple[type, Any]] = [
        (torch.Tensor, TensorArgument),
        (torch.SymInt, SymIntArgument),
        (torch.SymFloat, SymFloatArgument),
        (torch.SymBool, SymBoolArgument),
    ]
    meta = value.meta.get("val")
    for kind, argument in kinds:
        if isinstance(meta, kind):
            return argument(name=value.name)
    return ConstantArgument(name=value.name, value=meta)
