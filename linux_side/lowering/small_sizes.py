"""Drops guards of the lowering that exclude small sizes although the lowered graph is right at them.

While a program is traced again, operators query memory layouts: ``reshape`` after attention queries whether one row is
left. Torch records the answer for the example as a guard. Here the lowered graph and the program both run on the CPU at
the sizes that such a guard excludes, and the guard is dropped if the results agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.frontend.golden_doubts import difference, same_results
from linux_side.fx.state import STATE, state_to_inputs
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.refuted import Sizes, drop_refuted, resized

_RATIO = 4.0  # results may differ by this many times their difference at the example's sizes


def drop_refuted_by_lowering(program: ExportedProgram, lowered: torch.fx.GraphModule, guards: ProgramGuards) -> None:
    """Drops the guards that lowering added and that exclude only a few sizes, if the results agree at those sizes.

    Args:
        program: the program that was lowered, on the CPU.
        lowered: the lowered graph.
        guards: the guards of the program, collected before the lowering.
    """
    found = list(guards.of_lowering())
    if not found or program.example_inputs is None:
        return
    before, leaves = state_to_inputs(program), pytree.tree_leaves(program.example_inputs)

    @cache
    def rounding() -> float:
        """Returns the greatest difference at the example's own sizes, which is due to rounding."""
        pairs = zip(_run(lowered, leaves), _run(before, leaves), strict=True)
        return max((difference(*pair) for pair in pairs if isinstance(pair[0], torch.Tensor)), default=0.0)

    @cache
    def agrees(sizes: Sizes) -> bool:
        inputs = resized(leaves, guards, dict(sizes))
        try:
            return inputs is not None and same_results(_run(lowered, inputs), _run(before, inputs), _RATIO * rounding())
        except Exception:  # noqa: BLE001 - operators may raise any class; then the results do not agree
            return False

    drop_refuted(found, guards, lambda _, sizes: agrees(sizes))


def _run(gm: torch.fx.GraphModule, leaves: Sequence[Any]) -> list[Any]:
    """Runs a graph on copies of its inputs; returns its outputs, followed by the new values of its state."""
    state = [change.value for change in gm.meta.get(STATE, []) if change.value is not None]
    with torch.no_grad():
        interpreter = torch.fx.Interpreter(gm)
        return pytree.tree_leaves(interpreter.run(*_copied([*leaves, *state]), enable_io_processing=False))


def _copied(leaves: Sequence[Any]) -> list[Any]:
    return [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
