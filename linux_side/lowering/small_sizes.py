"""Small sizes that lowering's guards exclude, though the lowered graph is right with them.

Operators ask of memory layouts while a program is traced again (``reshape`` behind attention asks whether one row is
left), and torch keeps the answer for the example as a guard. Here the lowered graph is run on the CPU with the sizes
that such a guard excludes, beside the program, and the guard is dropped if both give the same.
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

_RATIO = 4.0  # of the difference at other sizes to that at the example's


def drop_refuted_by_lowering(program: ExportedProgram, lowered: torch.fx.GraphModule, guards: ProgramGuards) -> None:
    """Drops the guards that lowering added and that exclude few sizes alone, with which it gives the same.

    Args:
        program: as it was lowered, on the CPU.
        guards: of the program, made before it was lowered.
    """
    found = list(guards.of_lowering())
    if not found or program.example_inputs is None:
        return
    before, leaves = state_to_inputs(program), pytree.tree_leaves(program.example_inputs)

    @cache
    def rounding() -> float:
        """What lowering changes at the example's own sizes, by rounding alone."""
        pairs = zip(_run(lowered, leaves), _run(before, leaves), strict=True)
        return max((difference(*pair) for pair in pairs if isinstance(pair[0], torch.Tensor)), default=0.0)

    @cache
    def agrees(sizes: Sizes) -> bool:
        inputs = resized(leaves, guards, dict(sizes))
        try:
            return inputs is not None and same_results(_run(lowered, inputs), _run(before, inputs), _RATIO * rounding())
        except Exception:  # noqa: BLE001 - of operators, which raise whatever they do: then they do not agree
            return False

    drop_refuted(found, guards, lambda _, sizes: agrees(sizes))


def _run(gm: torch.fx.GraphModule, leaves: Sequence[Any]) -> list[Any]:
    """A graph's outputs, and behind them its state's new values."""
    state = [change.value for change in gm.meta.get(STATE, []) if change.value is not None]
    with torch.no_grad():
        interpreter = torch.fx.Interpreter(gm)
        return pytree.tree_leaves(interpreter.run(*_copied([*leaves, *state]), enable_io_processing=False))


def _copied(leaves: Sequence[Any]) -> list[Any]:
    return [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
