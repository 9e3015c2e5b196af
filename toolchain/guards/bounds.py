"""Bounds the values of an expression by interval arithmetic; the bounds may be too wide, but never too narrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from toolchain.guards.grammar import Expression, Number, Operation, Size

# A size's least and greatest value; None stands for no upper bound.
Range = tuple[int, "int | None"]
Ranges = Mapping[Size, Range]
Interval = tuple[int, int]

# No tensor has more elements than fit into 63 bits.
UNBOUNDED = 2**63 - 1


def bounds(expression: Expression, ranges: Ranges) -> Interval:
    """Returns bounds of an expression's least and greatest value.

    For a rule they are (0, 0) if it is never true, (1, 1) if it is always true, and otherwise (0, 1).

    Raises:
        KeyError: a size has no range.
        ZeroDivisionError: a divisor is always zero.
    """
    if isinstance(expression, Number):
        return expression.value, expression.value
    if isinstance(expression, Size):
        low, high = ranges[expression]
        return low, UNBOUNDED if high is None else high
    return _INTERVALS[expression.operator]([bounds(operand, ranges) for operand in expression.operands])


def is_always(rule: Operation, ranges: Ranges) -> bool:
    """Whether interval arithmetic shows that a rule is true for all sizes in their ranges."""
    return bounds(rule, ranges) == (1, 1)


def _sum(of: list[Interval]) -> Interval:
    return sum(low for low, _ in of), sum(high for _, high in of)


def _difference(of: list[Interval]) -> Interval:
    if len(of) == 1:
        return -of[0][1], -of[0][0]
    (low, high), (less_low, less_high) = of
    return low - less_high, high - less_low


def _product(of: list[Interval]) -> Interval:
    found = of[0]
    for other in of[1:]:
        corners = [a * b for a in found for b in other]
        found = min(corners), max(corners)
    return found


def _quotient(of: list[Interval]) -> Interval:
    (low, high), divisor = of
    parts = _without_zero(divisor)
    corners = [a // b for a in (low, high) for part in parts for b in part]
    return min(corners), max(corners)


def _remainder(of: list[Interval]) -> Interval:
    (low, high), divisor = of
    parts = _without_zero(divisor)
    if low == high and divisor[0] == divisor[1]:
        return low % divisor[0], low % divisor[0]
    if low >= 0 and high < divisor[0]:
        return low, high
    return min(min(a + 1, 0) for a, _ in parts), max(max(b - 1, 0) for _, b in parts)


def _without_zero(divisor: Interval) -> list[Interval]:
    low, high = divisor
    if low == high == 0:
        raise ZeroDivisionError
    parts = [(low, min(high, -1)), (max(low, 1), high)]
    return [part for part in parts if part[0] <= part[1]]


def _compare(below: Callable[[Interval, Interval], bool], above: Callable[[Interval, Interval], bool]) -> Callable:  # type: ignore[type-arg]
    """Makes a comparison that is always true if ``below`` holds, and never true if ``above`` holds."""
    return lambda of: (int(below(*of)), int(not above(*of)))


def _same(a: Interval, b: Interval) -> bool:
    return a[0] == a[1] == b[0] == b[1]


def _apart(a: Interval, b: Interval) -> bool:
    return a[1] < b[0] or b[1] < a[0]


def _less(a: Interval, b: Interval) -> bool:
    return a[1] < b[0]


def _at_most(a: Interval, b: Interval) -> bool:
    return a[1] <= b[0]


_INTERVALS: dict[str, Callable[[list[Interval]], Interval]] = {
    "+": _sum,
    "-": _difference,
    "*": _product,
    "//": _quotient,
    "%": _remainder,
    "min": lambda of: (min(low for low, _ in of), min(high for _, high in of)),
    "max": lambda of: (max(low for low, _ in of), max(high for _, high in of)),
    "==": _compare(_same, _apart),
    "!=": _compare(_apart, _same),
    "<": _compare(_less, lambda a, b: _at_most(b, a)),
    "<=": _compare(_at_most, lambda a, b: _less(b, a)),
    ">": _compare(lambda a, b: _less(b, a), _at_most),
    ">=": _compare(lambda a, b: _at_most(b, a), _less),
    "and": lambda of: (prod(low for low, _ in of), prod(high for _, high in of)),
    "or": lambda of: (max(low for low, _ in of), max(high for _, high in of)),
    "not": lambda of: (1 - of[0][1], 1 - of[0][0]),
}
