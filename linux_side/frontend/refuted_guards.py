"""Sizes that torch's guards exclude, though the exported program is right with them.

Some operators ask, before or while they are traced, whether a size is 1, to lay out memory (``contiguous`` of an
expanded tensor, a convolution behind channels-last activations), and whether a part of a tensor has one row. Torch
keeps the answer as a guard, and its own program then refuses a batch of 1, or three rows of which one is between the
first and the last. Some models ask whether a size is one that they know, and take what they have prepared for it:
SwinIR its mask, a vision transformer its positions. Where the range asked for has such a size, the program is run with
it beside the model itself, and a guard is dropped if they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import _convert_guards_to_code
from torch.utils import _pytree as pytree

from linux_side.frontend.dynamic_shapes import program_guards
from linux_side.frontend.golden_doubts import same_results
from linux_side.frontend.hidden_state import state_kept
from linux_side.guards.collect import Found, ProgramGuards
from linux_side.guards.locations import is_of_operator
from linux_side.guards.refuted import Sizes, drop_refuted, excluded_sizes, resized
from toolchain.errors import BuildFailedError
from toolchain.guards.grammar import Size

Asked = dict[Size, int]

_MOST = 32  # sizes of which a model asks behind a guard


def drop_refuted_guards(trial: Trial, leaves: Sequence[Any], guards: ProgramGuards) -> None:
    """Drops the guards that exclude a few sizes alone, with which program and model agree.

    Args:
        leaves: the example's inputs, of which others are made.
    """
    behind: dict[Any, list[Asked] | None] = {}

    def agrees(guard: Found, sizes: Sizes) -> bool:
        if not trial.agrees_at(leaves, dict(sizes), guards):
            return False
        if is_of_operator(guard.origin.sloc):
            return True
        if guard.rule not in behind:
            behind[guard.rule] = trial.asked_behind(leaves, dict(sizes), guards)
        asked = behind[guard.rule]
        return asked is not None and all(trial.agrees_at(leaves, {**dict(sizes), **more}, guards) for more in asked)

    if drop_refuted(guards.traced(), guards, agrees):
        trial.program._guards_code = _convert_guards_to_code(trial.program.graph_module)  # for its own module


def require_example(leaves: Sequence[Any], guards: ProgramGuards, where: str) -> None:
    """Refuses a program that was exported with other sizes than the user's example, and that a guard keeps from those.

    Raises:
        BuildFailedError: as the guard was not dropped, the program gives other numbers there than the model, or may.
    """
    indices = {name: index for index, name in enumerate(guards.names)}
    example = {size: leaves[indices[size.input]].shape[size.dim] for size in guards.sizes.expressions}
    if guards.allows(example):
        return
    said = ", ".join(f"{size} = {value}" for size, value in example.items())
    raise BuildFailedError(
        f"torch.export fixes the example's sizes ({said}): a program of other sizes gives other numbers there",
        where=where,
        remedy="give an example of sizes that the model itself does not know; those that it knows are then refused",
    )


@dataclass
class Trial:
    """A program that was just exported, beside its model.

    Attributes:
        export: exports the model once more, with these inputs, and these sizes fixed.
        exports: how many times it may be.
    """

    program: ExportedProgram
    module: torch.nn.Module
    export: Callable[[Sequence[Any], Collection[Size]], ExportedProgram]
    exports: int = 8

    def agrees(self, leaves: Sequence[Any]) -> bool:
        """Whether program and model give the same for these inputs."""
        return _agree(self.program, self.module, leaves)

    def agrees_at(self, leaves: Sequence[Any], sizes: dict[Size, int], guards: ProgramGuards) -> bool:
        """The same for the inputs made of these; sizes that are not given are the example's."""
        inputs = resized(leaves, guards, sizes)
        return inputs is not None and self.agrees(inputs)

    def asked_behind(self, leaves: Sequence[Any], fixed: Asked, guards: ProgramGuards) -> list[Asked] | None:
        """The sizes of which the model asks only where it has those that are fixed; None where that is not known.

        ``size == (64, 64)`` asks of the width only where the height is 64.
        """
        exported = self._exported_with(leaves, fixed, guards)
        if exported is None:
            return None
        inputs, behind, found = exported
        stays = {guard.rule for guard in guards.traced() if excluded_sizes(guard, guards) is None}
        asked: list[Asked] = []
        for guard in found:
            if guard.rule in stays or is_of_operator(guard.origin.sloc):
                continue
            excluded = excluded_sizes(guard, behind)
            deeper = self.asked_behind(inputs, {**fixed, **dict(excluded[0])}, behind) if excluded else excluded
            if excluded is None or deeper is None:
                return None
            asked += [{**dict(sizes), **more} for sizes in excluded for more in ({}, *deeper)]
        return asked if len(asked) <= _MOST else None

    def _exported_with(
        self, leaves: Sequence[Any], fixed: Asked, guards: ProgramGuards
    ) -> tuple[list[Any], ProgramGuards, list[Found]] | None:
        """Exports with these sizes fixed; others that are the model's own too change within their ranges."""
        free = {size: guards.sizes.ranges[size] for size in guards.sizes.free if size not in fixed}
        middles = {size: (low + (low + 2 if high is None else high)) // 2 for size, (low, high) in free.items()}
        for others in ({}, middles, {size: middle + 1 for size, middle in middles.items()}):
            inputs = resized(leaves, guards, {**others, **fixed})
            self.exports -= 1
            if inputs is not None and self.exports >= 0 and (found := self._guards_of(inputs, fixed)):
                return inputs, *found
        return None

    def _guards_of(self, inputs: list[Any], fixed: Asked) -> tuple[ProgramGuards, list[Found]] | None:
        try:
            guards = program_guards(self.export(inputs, fixed))
            return guards, list(guards.traced())
        except Exception:  # noqa: BLE001 - of torch and of the model: then nothing is known
            return None


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
    return same_results(*results)
