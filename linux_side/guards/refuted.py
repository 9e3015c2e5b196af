"""Drops guards that are not needed, which trials at the sizes that they exclude show.

A guard that excludes a few sizes is tried at each. A guard may also exclude many sizes that give its comparisons the
same few numbers: ``(x.3 + 63) // 64 != 1`` excludes 64 widths, and to the program they are all one window. Such sizes
are a class. Whatever queried the guard does the same for a whole class, so the guard is tried at the ends and the
middle of each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from linux_side.guards.collect import Found, ProgramGuards
from toolchain.guards.bounds import UNBOUNDED, Range, bounds, is_always
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import CONNECTIVES, Expression, Number, Operation, Size, sizes_in

Sizes = tuple[tuple[Size, int], ...]

MOST_TRIALS = 16  # a guard that needs trials at more choices of sizes than this stays
_ASKED = 2**14  # the most choices of sizes for which a rule is evaluated


def drop_refuted(
    found: Iterable[Found],
    guards: ProgramGuards,
    agrees: Callable[[Found, Sizes], bool],
    chosen: Callable[[Found, list[Sizes]], list[Sizes] | None] | None = None,
) -> bool:
    """Drops each guard for which the results are right at the sizes that it excludes.

    Args:
        found: the guards to test; each must have an origin.
        guards: the guards of the program, from which guards are dropped.
        agrees: returns whether the results at sizes that a guard excludes are right.
        chosen: returns at which of the sizes that a guard excludes it is tried; :func:`sizes_to_try` if left out.

    Returns:
        Whether any guard was dropped.
    """
    dropped, kept = False, list[Operation]()
    for guard in list(found):
        excluded = _not_by(kept, all_excluded(guard, guards) or [])
        tried = (chosen or sizes_to_try)(guard, excluded) if excluded else None
        if tried and all(agrees(guard, sizes) for sizes in tried):
            guards.drop(guard)
            dropped = True
        elif isinstance(guard.rule, Operation):
            kept.append(guard.rule)
    return dropped


def _not_by(kept: Sequence[Operation], excluded: list[Sizes]) -> list[Sizes]:
    """Returns those of the sizes that no guard that stays excludes, or all if such guards exclude them all."""
    known = {size for sizes in excluded[:1] for size, _ in sizes}
    others = Guards(rule for rule in kept if set(sizes_in(rule)) <= known)
    return [sizes for sizes in excluded if others.holds(dict(sizes))] or excluded


def excluded_sizes(guard: Found, guards: ProgramGuards) -> list[Sizes] | None:
    """Returns the sizes that a guard excludes; None if they are unknown or too many to try each."""
    excluded = all_excluded(guard, guards)
    return None if excluded is None or len(excluded) > MOST_TRIALS else excluded


def all_excluded(guard: Found, guards: ProgramGuards) -> list[Sizes] | None:
    """Returns the sizes that a guard excludes, however many; None if they are unknown."""
    rule = guard.rule
    if not isinstance(rule, Operation):
        return [] if rule is True else None
    ranges = {size: guards.sizes.ranges[size] for size in dict.fromkeys(sizes_in(rule))}
    counted = int(_ASKED ** (1 / max(len(ranges), 1)))
    pieces = {size: _pieces(known, counted, set(_numbers_in(rule))) for size, known in ranges.items()}
    if math.prod(map(len, pieces.values())) > _ASKED:
        return None
    alone, excluded = Guards([rule]), list[Sizes]()
    for choice in itertools.product(*pieces.values()):
        box = dict(zip(pieces, choice, strict=True))
        if all(low == high for low, high in choice):
            sizes = tuple((size, low) for size, (low, _) in box.items())
            excluded += [] if alone.holds(dict(sizes)) else [sizes]
        elif not is_always(rule, box):
            return None
    return excluded


def sizes_to_try(guard: Found, excluded: list[Sizes]) -> list[Sizes] | None:
    """Returns those of the sizes that a guard excludes at which it is tried; None if they are too many.

    Args:
        guard: the guard.
        excluded: the sizes that it excludes.
    """
    if len(excluded) <= MOST_TRIALS:
        return list(excluded)
    numbers = _operands_of_comparisons(guard.rule)
    classes: dict[tuple[Range | None, ...], list[Sizes]] = {}
    for sizes in excluded:
        classes.setdefault(tuple(_value(number, sizes) for number in numbers), []).append(sizes)
        if len(classes) > MOST_TRIALS:
            return None
    tried = [sizes for of in classes.values() for sizes in ends_and_middle(of)]
    return tried if len(tried) <= MOST_TRIALS else None


def ends_and_middle(of: Sequence[Sizes]) -> list[Sizes]:
    """Returns the least, a middle and the greatest of some choices of sizes, ordered by each size in turn."""
    found: dict[Sizes, None] = {}
    for first in range(len(of[0])):
        ordered = sorted(of, key=lambda sizes: [sizes[first][1], *(value for _, value in sizes)])
        found |= dict.fromkeys((ordered[0], ordered[len(ordered) // 2], ordered[-1]))
    return list(found)


def _value(number: Expression, sizes: Sizes) -> Range | None:
    """Returns a number as the bounds of its value; None if it is divided by zero."""
    try:
        return bounds(number, {size: (value, value) for size, value in sizes})
    except ZeroDivisionError:
        return None


def _operands_of_comparisons(rule: Any) -> list[Expression]:
    if rule.operator in CONNECTIVES:
        return [operand for part in rule.operands for operand in _operands_of_comparisons(part)]
    return list(rule.operands)


def _pieces(whole: Range, counted: int, numbers: set[int]) -> list[Range]:
    """Splits a range into single sizes if there are few, or else into the smallest, those in the rule, and ranges."""
    low, high = whole
    last = UNBOUNDED if high is None else high
    if last - low < counted:
        return [(value, value) for value in range(low, last + 1)]
    alone = sorted({low, low + 1, low + 2, low + 3} | {number for number in numbers if low <= number <= last})
    pieces, begin = list[Range](), low
    for value in alone:
        pieces += [(begin, value - 1)] if begin < value else []
        pieces.append((value, value))
        begin = value + 1
    return [*pieces, (begin, high)] if begin <= last else pieces


def _numbers_in(expression: Expression) -> Iterator[int]:
    if isinstance(expression, Number):
        yield expression.value
    elif isinstance(expression, Operation):
        for operand in expression.operands:
            yield from _numbers_in(operand)


def resized(leaves: Sequence[Any], guards: ProgramGuards, sizes: dict[Size, int]) -> list[Any] | None:
    """Returns the example's leaves, cropped or repeated to these sizes and to those that depend on them.

    Args:
        leaves: the leaves of the example.
        guards: the guards of the program.
        sizes: the sizes to change.

    Returns:
        The leaves; None if no sizes of the program fit.
    """
    wanted = guards.sizes.completed({**guards.example(), **sizes})
    if wanted is None:
        return None
    indices = {name: index for index, name in enumerate(guards.names)}
    inputs = list(leaves)
    for place, length in wanted.items():
        value = inputs[indices[place.input]]
        have = value.shape[place.dim]
        if have < length:
            value = torch.cat([value] * -(-length // max(have, 1)), place.dim)
        # Torch would make further symbols of the strides of a part.
        inputs[indices[place.input]] = value.narrow(place.dim, 0, length).contiguous()
    return inputs
