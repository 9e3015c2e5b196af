"""Reduces rules to fewer and simpler ones that are equivalent for all sizes within the ranges."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import prod

from toolchain.guards.bounds import Range, Ranges, is_always
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Number, Operation, Size, sizes_in

# Rules on at most this many combinations of sizes are evaluated for all of them.
_TRIED = 20_000
# At most this many excluded sizes are listed one by one.
_NAMED = 3


def reduced(rules: Sequence[Operation], ranges: Ranges) -> list[Operation]:
    """Returns equivalent rules without redundant ones; rules on one size become multiples and bounds if possible.

    Rules that no sizes satisfy are returned unchanged.

    Args:
        rules: the rules, all of which must hold.
        ranges: the range of each size.
    """
    ranges = dict(ranges)
    left = [rule for rule in dict.fromkeys(rules) if not is_always(rule, ranges)]
    alone: dict[Size, list[Operation]] = {}
    for rule in left:
        if len(set(sizes_in(rule))) == 1:
            alone.setdefault(next(sizes_in(rule)), []).append(rule)
    allowed = {size: values for size, of in alone.items() if (values := _allowed(size, of, ranges[size]))}
    single = [rule for size, of in alone.items() for rule in _plainer(size, of, allowed.get(size), ranges[size])]
    several = [rule for rule in left if len(set(sizes_in(rule))) > 1]
    return single + [rule for rule in several if not _is_implied(rule, ranges, allowed)]


def _allowed(size: Size, rules: Sequence[Operation], within: Range) -> list[int] | None:
    low, high = within
    if high is None or high - low >= _TRIED:
        return None
    together = Guards(rules, [size])
    return [value for value in range(low, high + 1) if together.violated((value,)) is None]


def _plainer(
    size: Size, rules: Sequence[Operation], allowed: Sequence[int] | None, within: Range
) -> Sequence[Operation]:
    """Returns simpler rules on one size that allow the same values, or the given ones if there are none."""
    if not allowed or within[1] is None:
        return rules
    everything = range(within[0], within[1] + 1)
    left_out = sorted(set(everything) - set(allowed))
    plain = _multiples(size, allowed, everything)
    if plain is None and 0 < len(left_out) <= _NAMED:
        plain = [Operation("!=", (size, Number(value))) for value in left_out]
    if plain is None and (others := _multiples(size, left_out, everything)) is not None and len(others) == 1:
        plain = [Operation("!=", others[0].operands)] if others[0].operator == "==" else None
    return rules if plain is None else plain


def _multiples(size: Size, values: Sequence[int], everything: range) -> list[Operation] | None:
    """Returns rules for evenly spaced values: a remainder, and bounds if the range exceeds them; None for others."""
    steps = {b - a for a, b in itertools.pairwise(values)}
    if len(steps) > 1 or not values:
        return None
    if len(values) == 1:
        return [Operation("==", (size, Number(values[0])))] if len(everything) > 1 else []
    [step] = steps
    first, last = values[0], values[-1]
    rules = []
    if step > 1:
        rules.append(Operation("==", (Operation("%", (size, Number(step))), Number(first % step))))
    if first - step >= everything[0]:
        rules.append(Operation(">=", (size, Number(first))))
    if last + step <= everything[-1]:
        rules.append(Operation("<=", (size, Number(last))))
    return rules


def _is_implied(rule: Operation, ranges: Mapping[Size, Range], allowed: Mapping[Size, Sequence[int]]) -> bool:
    """Returns whether a rule on several sizes follows from the rules on one size, by trying all combinations."""
    sizes = list(dict.fromkeys(sizes_in(rule)))
    choices = [allowed.get(size) or _every(ranges[size]) for size in sizes]
    if prod(map(len, choices)) > _TRIED:
        return False
    guards = Guards([rule], sizes)
    return all(guards.violated(values) is None for values in itertools.product(*choices))


def _every(within: Range) -> Sequence[int]:
    low, high = within
    return range(low, low + _TRIED + 1 if high is None else high + 1)
