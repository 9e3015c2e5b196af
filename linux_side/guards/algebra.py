"""Builds expressions of sizes in a simplified form: constants are folded, and sums and products are flat."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from math import gcd

from toolchain.guards.grammar import COMPARISONS, Expression, Number, Operation

_MIRRORED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Rule = bool | Operation


def add(*terms: Expression) -> Expression:
    """Returns the sum of the terms: positive terms first, then subtracted ones, and a constant last."""
    constant, plus, minus = 0, list[Expression](), list[Expression]()
    for term in terms:
        for sign, part in _signed_terms(term):
            if isinstance(part, Number):
                constant += sign * part.value
            elif (factor := _factor(part)) < 0:
                (minus if sign > 0 else plus).append(multiply(Number(-1), part))
            elif factor:
                (plus if sign > 0 else minus).append(part)
    if constant > 0 or not plus:
        plus.append(Number(constant))
    total = plus[0] if len(plus) == 1 else Operation("+", tuple(plus))
    for part in [*minus, *([Number(-constant)] if constant < 0 and total != Number(constant) else [])]:
        total = Operation("-", (total, part))
    return total


def _signed_terms(term: Expression) -> list[tuple[int, Expression]]:
    if isinstance(term, Operation) and term.operator == "+":
        return [found for operand in term.operands for found in _signed_terms(operand)]
    if isinstance(term, Operation) and term.operator == "-":
        first, *rest = term.operands
        if not rest:
            return [(-sign, part) for sign, part in _signed_terms(first)]
        return _signed_terms(first) + [(-sign, part) for sign, part in _signed_terms(rest[0])]
    return [(1, term)]


def multiply(*factors: Expression) -> Expression:
    """Returns the product of the factors, with the constant first."""
    constant, others = 1, list[Expression]()
    for factor in factors:
        flat = factor.operands if isinstance(factor, Operation) and factor.operator == "*" else (factor,)
        for part in flat:
            if isinstance(part, Number):
                constant *= part.value
            else:
                others.append(part)
    if constant == 0 or not others:
        return Number(constant)
    parts = others if constant == 1 else [Number(constant), *others]
    return parts[0] if len(parts) == 1 else Operation("*", tuple(parts))


def divide(dividend: Expression, divisor: Expression) -> Expression:
    """Returns the quotient, rounded down."""
    if divisor == Number(1):
        return dividend
    if isinstance(dividend, Number) and isinstance(divisor, Number) and divisor.value:
        return Number(dividend.value // divisor.value)
    return Operation("//", (dividend, divisor))


def remainder(dividend: Expression, divisor: Expression) -> Expression:
    """Returns the remainder of a division, which is computed if both operands are numbers."""
    if isinstance(dividend, Number) and isinstance(divisor, Number) and divisor.value:
        return Number(dividend.value % divisor.value)
    return Operation("%", (dividend, divisor))


def extreme(word: str, *operands: Expression) -> Expression:
    """Returns the minimum or the maximum of the operands.

    Args:
        word: ``min`` or ``max``.
        operands: at least one.
    """
    flat = [
        part
        for operand in operands
        for part in (operand.operands if isinstance(operand, Operation) and operand.operator == word else (operand,))
    ]
    if all(isinstance(part, Number) for part in flat):
        choose = min if word == "min" else max
        return Number(choose(part.value for part in flat if isinstance(part, Number)))
    return flat[0] if len(flat) == 1 else Operation(word, tuple(flat))


def compare(sign: str, left: Expression, right: Expression) -> Rule:
    """Returns a comparison, or its truth value if both sides are constants.

    Args:
        sign: ``==``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        left: the left side.
        right: the right side.
    """
    if isinstance(left, Number) and isinstance(right, Number):
        return _COMPARE[sign](left.value, right.value)
    if isinstance(left, Number):
        sign, left, right = _MIRRORED[sign], right, left
    if right == Number(0) and isinstance(left, Operation) and left.operator == "%" and sign in ("==", "!="):
        return _divisible(sign, *left.operands)
    left, right = _constant_to_the_right(left, right)
    common = gcd(_factor(left), _factor(right))
    if common > 1 and not (left == Number(0) or right == Number(0)):
        left, right = _divided(left, common), _divided(right, common)
    return Operation(sign, (left, right))


def _divisible(sign: str, dividend: Expression, divisor: Expression) -> Rule:
    if isinstance(divisor, Number) and divisor.value:
        common = gcd(_factor(dividend), divisor.value)
        dividend, divisor = _divided(dividend, common), Number(divisor.value // common)
        if abs(divisor.value) == 1:
            return sign == "=="
    return Operation(sign, (remainder(dividend, divisor), Number(0)))


def _constant_to_the_right(left: Expression, right: Expression) -> tuple[Expression, Expression]:
    if isinstance(right, Number):
        constants = [sign * part.value for sign, part in _signed_terms(left) if isinstance(part, Number)]
        moved = Number(-sum(constants))
        return add(left, moved), add(right, moved)
    return left, right


def _factor(expression: Expression) -> int:
    """Returns the constant factor of an expression; 0 for 0."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Operation) and expression.operator == "*" and isinstance(expression.operands[0], Number):
        return expression.operands[0].value
    return 1


def _divided(expression: Expression, by: int) -> Expression:
    if isinstance(expression, Number):
        return Number(expression.value // by)
    if isinstance(expression, Operation) and expression.operator == "*":
        first, *rest = expression.operands
        if isinstance(first, Number):
            return multiply(Number(first.value // by), *rest)
    return expression


def negate(rule: Rule) -> Rule:
    """Returns the negation of a rule."""
    if isinstance(rule, bool):
        return not rule
    if rule.operator in COMPARISONS:
        return Operation(_OPPOSITE[rule.operator], rule.operands)
    if rule.operator == "not":
        [inner] = rule.operands
        return inner if isinstance(inner, Operation) else Operation("not", rule.operands)
    return Operation("not", (rule,))


def connect(word: str, rules: list[Rule]) -> Rule:
    """Returns the conjunction or the disjunction of rules.

    Args:
        word: ``and`` or ``or``.
        rules: the rules.
    """
    decides = word == "or"
    if any(rule is decides for rule in rules):
        return decides
    found = [rule for rule in rules if isinstance(rule, Operation)]
    if not found:
        return not decides
    flat = reduce(
        lambda into, rule: [*into, *(rule.operands if rule.operator == word else (rule,))], found, list[Expression]()
    )
    return found[0] if len(found) == 1 else Operation(word, tuple(flat))
