"""Small sizes that torch's guards exclude, though the exported program is right with them.

Some operators ask, before or while they are traced, whether a size is 1, to lay out memory (``contiguous`` of an
expanded tensor, a convolution behind channels-last activations), and whether a part of a tensor has one row. Torch
keeps the answer as a guard, and its own program then refuses a batch of 1, or three rows of which one lies between the
first and the last. Where the range asked for has such a size, the program is run with it beside the model itself, and a
guard is dropped if they agree. A branch of the model's own is never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import _convert_guards_to_code
from torch.utils import _pytree as pytree

from linux_side.frontend.golden_doubts import is_different
from linux_side.frontend.hidden_state import state_kept
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.refuted import drop_refuted
from toolchain.errors import BuildFailedError
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Operation


def drop_refuted_guards(
    program: ExportedProgram, module: torch.nn.Module, leaves: Sequence[Any], guards: ProgramGuards
) -> None:
    """Drops the guards of operators that exclude small sizes alone, with which program and model agree.

    Args:
        program: of ``module``, just exported.
        leaves: the example's inputs, from which smaller ones are cut.
    """
    if drop_refuted(guards.by_operators(), guards, leaves, lambda cut: _agree(program, module, cut)):
        program._guards_code = _convert_guards_to_code(program.graph_module)  # what the program's own module checks


def allow_example(
    program: ExportedProgram, module: torch.nn.Module, leaves: Sequence[Any], guards: ProgramGuards, where: str
) -> None:
    """Drops the guards that exclude the user's example from a program that was exported with another one.

    Such a guard says that a size is not the model's own number, and there the model's other branch gives the same.

    Raises:
        BuildFailedError: the program gives other numbers than the model for the user's example.
    """
    indices = {name: index for index, name in enumerate(guards.names)}
    example = {size: leaves[indices[size.input]].shape[size.dim] for size in guards.sizes.expressions}
    excluding = [
        guard
        for guard in guards.traced()
        if isinstance(guard.rule, Operation) and not Guards([guard.rule]).holds(example)
    ]
    if not excluding:
        return
    if not _agree(program, module, leaves):
        said = ", ".join(f"{size} = {value}" for size, value in example.items())
        raise BuildFailedError(
            f"torch.export fixes the example's sizes ({said}): a program of other sizes gives other numbers there",
            where=where,
            remedy="give an example of sizes that the model itself does not know; those that it knows are then refused",
        )
    for guard in excluding:
        guards.drop(guard)
    program._guards_code = _convert_guards_to_code(program.graph_module)


def _agree(program: ExportedProgram, module: torch.nn.Module, leaves: Sequence[Any]) -> bool:
    results = []
    for run in (module, program.module(check_guards=False)):
        copied = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(copied, program.call_spec.in_spec)
        try:
            with torch.no_grad(), state_kept(module):
                results.append(pytree.tree_leaves(run(*args, **kwargs)))
        except Exception:  # noqa: BLE001 - of the model, which raises whatever its parts raise: then they do not agree
            return False
    return len(results[0]) == len(results[1]) and all(map(_same, *results))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return not is_different(one, other)
    return bool(one == other)
