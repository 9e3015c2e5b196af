"""Small sizes that lowering's guards exclude, though the lowered graph is right with them.

Operators ask of memory layouts while a program is traced again (``reshape`` behind attention asks whether one row is
left), and torch keeps the answer for the example as a guard. Here the lowered graph is run on the CPU with the sizes
that such a guard excludes, beside the program, and the guard is dropped if both give the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.frontend.golden_doubts import difference, is_different
from linux_side.fx.state import STATE, state_to_inputs
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.refuted import Sizes, drop_refuted, resized


def drop_refuted_by_lowering(
    program: ExportedProgram, lowered: torch.fx.GraphModule, guards: ProgramGuards, precision: torch.dtype
) -> None:
    """Drops the guards that lowering added and that exclude small sizes alone, with which it gives the same.

    Args:
        program: as it was lowered, on the CPU.
        guards: of the program, made before it was lowered.
        precision: in which it computes: results may differ by the root of its epsilon.
    """
    if program.example_inputs is None:
        return
    before, leaves = state_to_inputs(program), pytree.tree_leaves(program.example_inputs)
    rounding = math.sqrt(torch.finfo(precision).eps)

    @cache
    def agrees(sizes: Sizes) -> bool:
        inputs = resized(leaves, guards, dict(sizes))
        return inputs is not None and _agree(before, lowered, inputs, rounding)

    drop_refuted(guards.of_lowering(), guards, lambda _, sizes: agrees(sizes))


def _agree(one: torch.fx.GraphModule, other: torch.fx.GraphModule, leaves: Sequence[Any], rounding: float) -> bool:
    try:
        wanted, got = _run(one, leaves), _run(other, leaves)
    except Exception:  # noqa: BLE001 - of operators, which raise whatever they do: then they do not agree
        return False
    return len(wanted) == len(got) and all(_same(*pair, rounding) for pair in zip(got, wanted, strict=True))


def _run(gm: torch.fx.GraphModule, leaves: Sequence[Any]) -> list[Any]:
    """A graph's outputs, and behind them its state's new values."""
    state = [change.value for change in gm.meta.get(STATE, []) if change.value is not None]
    with torch.no_grad():
        interpreter = torch.fx.Interpreter(gm)
        return pytree.tree_leaves(interpreter.run(*_copied([*leaves, *state]), enable_io_processing=False))


def _copied(leaves: Sequence[Any]) -> list[Any]:
    return [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def _same(got: Any, wanted: Any, rounding: float) -> bool:
    if not isinstance(got, torch.Tensor) or not isinstance(wanted, torch.Tensor):
        return bool(got == wanted)
    return not is_different(got, wanted) or difference(got, wanted) <= rounding
