"""Drops guards that exclude only a few sizes and are not needed, which a trial at each of those sizes shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from linux_side.guards.collect import Found, ProgramGuards
from toolchain.guards.bounds import UNBOUNDED, Range, is_always
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Expression, Number, Operation, Size, sizes_in

Sizes = tuple[tuple[Size, int], ...]

_MOST = 16  # a guard that excludes more choices of sizes than this stays
_ASKED = 2**14  # the most choices of sizes for which a rule is evaluated


def drop_refuted(found: Iterable[Found], guards: ProgramGuards, agrees: Callable[[Found, Sizes], bool]) -> bool:
    """Drops each guard that excludes only a few sizes, at all of which the results are right.

    Args:
        found: the guards to test; each must have an origin.
        guards: the guards of the program, from which guards are dropped.
        agrees: returns whether the results at sizes that a guard excludes are right.

    Returns:
        Whether any guard was dropped.
    """
    dropped = False
    for guard in list(found):
        excluded = excluded_sizes(guard, guards)
        if excluded and all(agrees(guard, sizes) for sizes in excluded):
            guards.drop(guard)
            dropped = True
    return dropped


def excluded_sizes(guard: Found, guards: ProgramGuards) -> list[Sizes] | None:
    """Returns the sizes that a guard excludes; None if they are unknown or too many to try each."""
    rule = guard.rule
    if not isinstance(rule, Operation):
        return [] if rule is True else None
    ranges = {size: guards.sizes.ranges[size] for size in set(sizes_in(rule))}
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
    return excluded if len(excluded) <= _MOST else None


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
