"""Guards that exclude a few sizes alone, and that are not needed: a trial with each of those sizes shows it."""

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

_MOST = 16  # choices of sizes that are tried for one guard; one that excludes more stays
_ASKED = 2**14  # choices of sizes of which a rule is asked one by one


def drop_refuted(found: Iterable[Found], guards: ProgramGuards, agrees: Callable[[Found, Sizes], bool]) -> bool:
    """Drops guards that exclude a few sizes alone, each of which was tried and gives the right numbers.

    Args:
        found: the guards in question, all of torch's own record.
        agrees: whether the numbers for sizes that a guard excludes are right.

    Returns:
        Whether any was dropped.
    """
    dropped = False
    for guard in list(found):
        excluded = excluded_sizes(guard, guards)
        if excluded and all(agrees(guard, sizes) for sizes in excluded):
            guards.drop(guard)
            dropped = True
    return dropped


def excluded_sizes(guard: Found, guards: ProgramGuards) -> list[Sizes] | None:
    """The sizes that a guard excludes; None where they are not known, or too many to try each."""
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
    """A range in pieces: each size by itself, if that is few, or else the smallest and those that a rule names."""
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
    """The example with these sizes, and those that are equal to them or made of them; None where there are none such.

    Inputs are cut, or repeated and cut.
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
        # A part's strides would be sizes of their own to torch.
        inputs[indices[place.input]] = value.narrow(place.dim, 0, length).contiguous()
    return inputs
