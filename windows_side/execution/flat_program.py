"""A program as it is called: from the leaves of a call to those of its result, its engines in place."""

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
    """A module from leaves to leaves, and what else a call needs to know.

    Attributes:
        module: its parameters, buffers, constants and engines are attributes.
        in_spec: of ``(args, kwargs)``.
        out_spec: of the result.
        state: the buffers that calls change, by name.
        changed_inputs: the inputs that calls change, by their place among the inputs that are tensors.
        engines: in graph order.
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
    """The same of an exported program, without torch's own checks of its inputs.

    Those repeat ours, cost more than a small engine, and refuse leaves where the model takes keywords.
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
    """Lets engines and weights go with the model.

    A module that refers to itself stays until Python looks for cycles, which it does rarely, since it knows nothing of
    the GPU's memory.
    """
    flat.graph.owning_module = None
    for name in ("train", "eval"):  # bound methods, by which torch refuses both
        flat.__dict__.pop(name, None)
