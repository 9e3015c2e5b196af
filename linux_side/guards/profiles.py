"""Checks the sizes of optimization profiles against the guards and against the relations between sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linux_side.guards.collect import Found, ProgramGuards
from linux_side.guards.sizes import range_of
from linux_side.guards.tracing import is_of_data
from toolchain.errors import BuildFailedError, TrtcrossError, UsageError
from toolchain.guards.bounds import Range
from toolchain.guards.describe import complaint
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Operation, Size

KINDS = ("min", "opt", "max")

Profiles = list[dict[str, dict[str, int]]]


def require_guards(guards: ProgramGuards, profiles: Profiles, ranges: Mapping[Any, Any]) -> None:
    """Requires that the program takes the sizes of every profile.

    Args:
        guards: the guards of the program.
        profiles: for each profile, each symbol's ``min``, ``opt`` and ``max``; if empty, the program's own ranges are
            checked.
        ranges: the program's range constraints, for symbols that the profiles do not name.

    Raises:
        UsageError: a guard of the exported program is violated. The message names the nearest allowed sizes.
        BuildFailedError: a guard that lowering added is violated.
    """
    found = [guard for guard in guards.found() if isinstance(guard.rule, Operation)]
    compiled = [(guard, Guards([guard.rule])) for guard in found if isinstance(guard.rule, Operation)]
    symbols = [symbol for symbol in ranges if symbol.is_Symbol and not is_of_data(symbol)]
    own = {str(symbol): range_of(symbol, ranges) for symbol in symbols}
    examples = guards.examples
    for index, profile in enumerate(profiles or [{}]):
        for kind in KINDS if profile else ("min", "max"):
            sizes = guards.sizes.at(_values(profile, own, examples, kind))
            for guard, alone in compiled:
                if not alone.holds(sizes):
                    of = f" of profile {index + 1}" if len(profiles) > 1 else ""
                    raise _violated(guard, sizes, f"{kind.upper()}{of}", guards)


def _values(
    profile: Mapping[str, Mapping[str, int]], own: Mapping[str, Range], examples: Mapping[str, int], kind: str
) -> dict[str, int]:
    values = {symbol: low if kind == "min" or high is None else high for symbol, (low, high) in own.items()}
    if kind == "opt":
        values |= {symbol: value for symbol, value in examples.items() if symbol in values}
    return values | {symbol: sizes[kind] for symbol, sizes in profile.items()}


def _violated(guard: Found, sizes: Mapping[Size, int], which: str, guards: ProgramGuards) -> TrtcrossError:
    assert isinstance(guard.rule, Operation)  # noqa: S101 - the caller has checked it
    problem = f"{which} is a size that the model does not take: {complaint(guard.rule, sizes)}"
    there = guards.nearest(sizes, _within(guards))
    near = " or ".join(", ".join(f"{size} = {value}" for size, value in _changes(found, sizes)) for found in there)
    if guard.by_lowering:
        return BuildFailedError(
            f"lowering narrowed the sizes that the model takes, and {problem}",
            where=guard.where or "lowering",
            remedy=f"the nearest that it leaves: {near or 'none'}; give that range, or rewrite the operation",
        )
    return UsageError(
        problem,
        where=guard.where or "--dynamic",
        remedy=f"the nearest that it takes: {near}" if near else "no sizes near these satisfy the model",
    )


def _changes(found: Mapping[Size, int], sizes: Mapping[Size, int]) -> Sequence[tuple[Size, int]]:
    return [(size, value) for size, value in found.items() if value != sizes[size]]


def _within(guards: ProgramGuards) -> dict[Size, Range]:
    """Returns the range of proposals for each size: unbounded if the program can be exported again."""
    return {
        size: (min(low, 1), None) if guards.just_exported else (low, high)
        for size, (low, high) in guards.sizes.ranges.items()
    }
