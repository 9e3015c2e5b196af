"""A program from the leaves of a call to the leaves of its result, with its engines in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.utils import _pytree as pytree

from windows_side.execution.old_values import keep_old_values


@dataclass(frozen=True)
class FlatProgram:
    """A module from leaves to leaves, and what else a call needs.

    Attributes:
        module: has the parameters, buffers, constants and engines as attributes.
        in_spec: the structure of ``(args, kwargs)``.
        out_spec: the structure of the result.
        state: the names of the buffers that calls change.
        changed_inputs: the inputs that calls change, as indices among the inputs that are tensors.
        engines: the engines in graph order.
        exported: makes the exported program, which has the same tensors and engines.
    """

    module: torch.fx.GraphModule
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    state: tuple[str, ...]
    changed_inputs: tuple[int, ...]
    engines: Sequence[Any]
    exported: Callable[[], ExportedProgram]


def flat_program(program: ExportedProgram) -> FlatProgram:
    """Makes the flat program of an exported program, without torch's own checks of its inputs.

    Those checks repeat ours, cost more than a small engine, and refuse leaves where the model takes keywords.
    """
    flat: torch.fx.GraphModule = program.module(check_guards=False)
    flat.graph.set_codegen(torch.fx.graph.CodeGen())
    signature = program.graph_signature
    keep_old_values(flat.graph, len(signature.buffers_to_mutate) + len(signature.user_inputs_to_mutate))
    flat.recompile()
    break_cycles(flat)
    arguments = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    tensors = [argument.name for argument in arguments if isinstance(argument, TensorArgument)]
    changed = set(signature.user_inputs_to_mutate.values())
    objects = [spec.target for spec in signature.input_specs if spec.kind is InputKind.CUSTOM_OBJ]
    return FlatProgram(
        flat,
        program.call_spec.in_spec,
        program.call_spec.out_spec,
        tuple(signature.buffers_to_mutate.values()),
        tuple(index for index, name in enumerate(tensors) if name in changed),
        [program.constants[str(name)] for name in objects],
        lambda: program,
    )


def break_cycles(flat: torch.fx.GraphModule) -> None:
    """Removes a module's references to itself, so that its engines and weights are released with the model.

    A module in a reference cycle stays until Python collects garbage, which is rare: Python does not count GPU memory.
    """
    flat.graph.owning_module = None
    for name in ("train", "eval"):  # bound methods with which torch refuses both calls
        flat.__dict__.pop(name, None)
