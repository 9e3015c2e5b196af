"""Drops guards that exclude sizes although the exported program is right at them.

Before or while they are traced, some operators query whether a size is 1 in order to lay out memory (``contiguous`` of
an expanded tensor, a convolution after channels-last activations), or whether a part of a tensor has one row. Torch
records the answer as a guard, and its program then refuses a batch of 1, or three rows of which one is between the
first and the last. Some models compare a size with one that they have prepared something for: SwinIR a mask, a vision
transformer its position embeddings. If the requested range contains such a size, the program and the model both run at
it, and the guard is dropped if they agree.
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
from linux_side.guards.refuted import (
    MOST_TRIALS,
    Sizes,
    drop_refuted,
    ends_and_middle,
    excluded_sizes,
    resized,
    sizes_to_try,
)
from toolchain.errors import BuildFailedError
from toolchain.guards.grammar import Operation, Size, sizes_in

Asked = dict[Size, int]

_MOST = 32  # the most sizes that are tried because a model compares with them only behind a guard


def drop_refuted_guards(trial: Trial, leaves: Sequence[Any], guards: ProgramGuards) -> None:
    """Drops the guards that exclude few sizes, or few kinds of sizes, if the program and the model agree at those.

    Args:
        trial: the program and its model.
        leaves: the leaves of the example, from which inputs of other sizes are made.
        guards: the guards of the program, changed in place.
    """
    behind: dict[Any, list[Asked] | None] = {}
    alike: set[Any] = set()  # the rules whose sizes `sizes_alike` has found to be few kinds

    def chosen(guard: Found, excluded: list[Sizes]) -> list[Sizes] | None:
        tried = sizes_to_try(guard, excluded)
        if is_of_operator(guard.origin.sloc) or len(excluded) <= MOST_TRIALS or tried is None:
            return tried
        if not all(trial.agrees_at(leaves, dict(sizes), guards) for sizes in tried):
            return None
        alike.add(guard.rule)
        return trial.sizes_alike(leaves, excluded, guards)

    def agrees(guard: Found, sizes: Sizes) -> bool:
        if not trial.agrees_at(leaves, dict(sizes), guards):
            return False
        if is_of_operator(guard.origin.sloc) or guard.rule in alike:
            return True
        if guard.rule not in behind:
            behind[guard.rule] = trial.asked_behind(leaves, dict(sizes), guards)
        asked = behind[guard.rule]
        return asked is not None and all(trial.agrees_at(leaves, {**dict(sizes), **more}, guards) for more in asked)

    if drop_refuted(guards.traced(), guards, agrees, chosen):
        # The checks of the program's own module must follow.
        trial.program._guards_code = _convert_guards_to_code(trial.program.graph_module)


def require_example(leaves: Sequence[Any], guards: ProgramGuards, where: str) -> None:
    """Requires that a program exported at other sizes than the user's example accepts the example's sizes.

    Args:
        leaves: the leaves of the user's example.
        guards: the guards of the program, without those that were dropped.
        where: the model's name.

    Raises:
        BuildFailedError: a guard excludes the example's sizes, at which the program may differ from the model.
    """
    indices = {name: index for index, name in enumerate(guards.names)}
    example = {size: leaves[indices[size.input]].shape[size.dim] for size in guards.sizes.expressions}
    if guards.allows(example):
        return
    said = ", ".join(f"{size} = {value}" for size, value in example.items())
    raise BuildFailedError(
        f"torch.export fixes the example's sizes ({said}): a program exported at other sizes gives other results there",
        where=where,
        remedy="give an example of sizes that the model does not treat specially; those that it does are then refused",
    )


@dataclass
class Trial:
    """An exported program with its model, to compare the two.

    Attributes:
        program: the program.
        module: the model.
        export: exports the model again, given inputs' leaves and the sizes that stay fixed.
        exports: how many more times it may be exported.
    """

    program: ExportedProgram
    module: torch.nn.Module
    export: Callable[[Sequence[Any], Collection[Size]], ExportedProgram]
    exports: int = 8

    def agrees(self, leaves: Sequence[Any]) -> bool:
        """Returns whether the program and the model give the same results for these inputs."""
        return _agree(self.program, self.module, leaves)

    def agrees_at(self, leaves: Sequence[Any], sizes: dict[Size, int], guards: ProgramGuards) -> bool:
        """Returns whether the program and the model agree at these sizes; other sizes are the example's."""
        inputs = resized(leaves, guards, sizes)
        return inputs is not None and self.agrees(inputs)

    def asked_behind(self, leaves: Sequence[Any], fixed: Asked, guards: ProgramGuards) -> list[Asked] | None:
        """Returns the sizes that the model compares with only if other sizes are fixed; None if that is unknown.

        For example, ``size == (64, 64)`` compares the width only if the height is 64.

        Args:
            leaves: the leaves of the inputs.
            fixed: the sizes that are fixed.
            guards: the guards of the program.
        """
        exported = self._exported_with(leaves, fixed, guards)
        if exported is None:
            return None
        inputs, behind, found = exported
        stays = _that_stay(guards)
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

    def sizes_alike(self, leaves: Sequence[Any], excluded: list[Sizes], guards: ProgramGuards) -> list[Sizes] | None:
        """Returns sizes at which to try a guard of the model's own that excludes many; None if they are unknown.

        The model is exported at one of the sizes. The guards of that program state at which of the others the model
        does the same, and the ends and the middle of those stand for all of them. Then come those that are left.

        Args:
            leaves: the leaves of the inputs.
            excluded: the sizes that the guard excludes.
            guards: the guards of the program.
        """
        stays, known = _that_stay(guards), {size for size, _ in excluded[0]}
        left, tried = excluded, list[Sizes]()
        while left:
            inputs = resized(leaves, guards, dict(left[0]))
            self.exports -= 1
            if inputs is None or self.exports < 0 or not (found := self._guards_of(inputs, {})):
                return None
            own = [guard.rule for guard in found[1] if not is_of_operator(guard.origin.sloc)]
            asks = [set(sizes_in(rule)) for rule in own if isinstance(rule, Operation) and rule not in stays]
            alike = [sizes for sizes in left if found[0].takes({**found[0].example(), **dict(sizes)})]
            if not alike or not all(sizes <= known for sizes in asks):
                return None
            tried += ends_and_middle(alike)
            left = [sizes for sizes in left if sizes not in alike]
        return tried

    def _exported_with(
        self, leaves: Sequence[Any], fixed: Asked, guards: ProgramGuards
    ) -> tuple[list[Any], ProgramGuards, list[Found]] | None:
        """Exports with these sizes fixed, and tries other values for the free sizes if the export fails."""
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
        except Exception:  # noqa: BLE001 - torch and the model may raise any class; then the guards are unknown
            return None


def _that_stay(guards: ProgramGuards) -> set[Any]:
    """Returns the rules of a program's guards that cannot be tried, and so are checked at every call."""
    return {guard.rule for guard in guards.traced() if excluded_sizes(guard, guards) is None}


def _agree(program: ExportedProgram, module: torch.nn.Module, leaves: Sequence[Any]) -> bool:
    results = []
    for run in (module, program.module(check_guards=False)):
        copied = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(copied, program.call_spec.in_spec)
        try:
            with torch.no_grad(), state_kept(module):
                results.append(pytree.tree_leaves(run(*args, **kwargs)))
        except Exception:  # noqa: BLE001 - the model may raise any class; then the two do not agree
            return False
    return same_results(*results)
