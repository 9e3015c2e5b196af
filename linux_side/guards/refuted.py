"""Guards that exclude a few small sizes alone, and that are not needed: a trial with each of those sizes shows it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from linux_side.guards.collect import Found, ProgramGuards
from toolchain.guards.bounds import Range, is_always
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Operation, Size, sizes_in

Sizes = tuple[tuple[Size, int], ...]

_MOST = 16  # choices of sizes that are tried for one guard; one that excludes more stays
_CHECKED = 2**14  # sizes of which a rule is asked one by one


def drop_refuted(
    found: Iterable[Found], guards: ProgramGuards, leaves: Sequence[Any], agrees: Callable[[list[Any]], bool]
) -> bool:
    """Drops guards that exclude small sizes alone, each of which was tried and gives the right numbers.

    Args:
        found: the guards in question, all of torch's own record.
        leaves: the example's inputs, from which smaller ones are cut.
        agrees: whether the numbers for such inputs are right.

    Returns:
        Whether any was dropped.
    """
    agreed: dict[Sizes, bool] = {}
    dropped = False
    for guard in list(found):
        excluded = _excluded(guard, guards)
        for sizes in excluded:
            if sizes not in agreed:
                cut = _cut(leaves, guards, dict(sizes))
                agreed[sizes] = cut is not None and agrees(cut)
        if excluded and all(agreed[sizes] for sizes in excluded):
            guards.drop(guard)
            dropped = True
    return dropped


def _excluded(guard: Found, guards: ProgramGuards) -> list[Sizes]:
    """What a guard excludes, where that is smaller than the example, and not too much to try each; else nothing."""
    rule = guard.rule
    if not isinstance(rule, Operation):
        return []
    example = guards.example()
    ranges = {size: guards.sizes.ranges[size] for size in set(sizes_in(rule))}
    small = {size: range(low, _always_from(rule, size, ranges, example[size])) for size, (low, _) in ranges.items()}
    if not all(small.values()) or math.prod(map(len, small.values())) > _CHECKED:
        return []
    alone = Guards([rule])
    choices = (dict(zip(small, values, strict=True)) for values in itertools.product(*small.values()))
    excluded = [tuple(sizes.items()) for sizes in choices if not alone.holds(sizes)]
    return excluded if len(excluded) <= _MOST else []


def _always_from(rule: Operation, size: Size, ranges: dict[Size, Range], last: int) -> int:
    """The smallest value of a size from which on a rule is always true; that of the range if not even from ``last``."""
    low, high = ranges[size]

    def is_true(first: int) -> bool:
        if is_always(rule, {**ranges, size: (first, high)}):
            return True
        if len(ranges) > 1 or high is None or high - first > _CHECKED:
            return False
        alone = Guards([rule])  # what interval arithmetic cannot tell: one size is counted through
        return all(alone.holds({size: value}) for value in range(first, high + 1))

    if low >= last or not is_true(last):
        return low
    first = low
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if is_true(middle) else (middle + 1, last)
    return first


def _cut(leaves: Sequence[Any], guards: ProgramGuards, sizes: dict[Size, int]) -> list[Any] | None:
    """The example with these sizes, and those that are equal to them or made of them, cut; None where not possible."""
    wanted = guards.sizes.completed({**guards.example(), **sizes})
    if wanted is None:
        return None
    indices = {name: index for index, name in enumerate(guards.names)}
    cut = list(leaves)
    for place, length in wanted.items():
        index = indices[place.input]
        if cut[index].shape[place.dim] < length:
            return None
        cut[index] = cut[index].narrow(place.dim, 0, length)
    return cut
