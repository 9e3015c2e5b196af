"""Translates guards from torch's Python text into our grammar. The text is parsed and never run.

Floats are translated exactly if possible: a quotient of sizes, or a size times a constant, that is rounded to an
integer or compared. For sizes below 2**52, comparing or rounding the quotient in double precision, as torch does, gives
the same result as comparing or rounding the exact fraction.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from linux_side.guards.algebra import Rule, add, compare, connect, divide, extreme, multiply, negate, remainder
from toolchain.guards.bounds import Ranges, bounds
from toolchain.guards.grammar import Expression, Number

_EXACT = 2**52
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_POWER_LIMIT = 8

# Returns the expression that a name or a chain of subscripts stands for, or None if it is not a size.
Resolve = Callable[[ast.expr], Expression | None]


class CannotSayError(Exception):
    """Our grammar cannot express a guard; the message gives the reason."""


@dataclass(frozen=True)
class _Ratio:
    """A float as a fraction of integers.

    Attributes:
        numerator: the numerator.
        denominator: the denominator, which is positive.
        rounded: whether torch's value is the nearest float to the fraction, and not the fraction itself.
    """

    numerator: Expression
    denominator: Expression
    rounded: bool


_Value = Expression | _Ratio


def translate(text: str, resolve: Resolve, ranges: Ranges) -> Rule:
    """Translates a guard.

    Args:
        text: torch's text of the guard.
        resolve: returns the expression of a name or a chain of subscripts.
        ranges: the ranges of the sizes, which determine whether floats are exact.

    Raises:
        CannotSayError: our grammar cannot express the guard.
    """
    try:
        return _Translation(resolve, ranges).rule(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise CannotSayError("it is not a Python expression") from error


def translate_number(text: str, resolve: Resolve, ranges: Ranges) -> Expression:
    """Translates an integer expression; the arguments are those of :func:`translate`.

    Raises:
        CannotSayError: our grammar cannot express it.
    """
    return _Translation(resolve, ranges).integer(ast.parse(text.strip(), mode="eval").body)


class _Translation:
    def __init__(self, resolve: Resolve, ranges: Ranges) -> None:
        self._resolve = resolve
        self._ranges = ranges

    def rule(self, node: ast.expr) -> Rule:
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return node.value
        if isinstance(node, ast.BoolOp):
            return connect("and" if isinstance(node.op, ast.And) else "or", [self.rule(part) for part in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return negate(self.rule(node.operand))
        if isinstance(node, ast.Compare) and all(type(sign) in _SIGNS for sign in node.ops):
            values = [self._value(part) for part in (node.left, *node.comparators)]
            signs = [_SIGNS[type(sign)] for sign in node.ops]
            return connect("and", [self._compared(*of) for of in zip(signs, values[:-1], values[1:], strict=True)])
        raise CannotSayError(f"{ast.unparse(node)} is not a comparison")

    def integer(self, node: ast.expr) -> Expression:
        value = self._value(node)
        if isinstance(value, _Ratio):
            raise CannotSayError(f"{ast.unparse(node)} is not an integer")
        return value

    def _value(self, node: ast.expr) -> _Value:
        if (found := self._resolve(node)) is not None:
            return found
        if isinstance(node, ast.Constant):
            return _constant(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._product(Number(-1), self._value(node.operand))
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Call) and not node.keywords:
            return self._call(ast.unparse(node.func), node)
        raise CannotSayError(f"{ast.unparse(node)} is neither a number nor a size of an input")

    def _binary(self, node: ast.BinOp) -> _Value:
        kind = type(node.op)
        if kind is ast.Mult:
            return self._product(self._value(node.left), self._value(node.right))
        if kind is ast.Div:
            return self._quotient(self._value(node.left), self._value(node.right))
        left, right = self.integer(node.left), self.integer(node.right)
        if kind is ast.Add:
            return add(left, right)
        if kind is ast.Sub:
            return add(left, multiply(Number(-1), right))
        if kind is ast.FloorDiv:
            return divide(left, right)
        if kind is ast.Mod:
            return remainder(left, right)
        if kind is ast.Pow and isinstance(right, Number) and 0 <= right.value <= _POWER_LIMIT:
            return multiply(Number(1), *[left] * right.value)
        raise CannotSayError(f"it has the operator of {ast.unparse(node)}")

    def _call(self, name: str, node: ast.Call) -> _Value:
        word = name.rpartition(".")[2].removeprefix("sym_")
        if word in ("max", "min") and node.args:
            return extreme(word, *map(self.integer, node.args))
        if len(node.args) == 1:
            if word == "abs":
                value = self.integer(node.args[0])
                return extreme("max", value, multiply(Number(-1), value))
            if word == "float":
                return self._as_ratio(self._value(node.args[0]))
            if word in ("floor", "ceil", "trunc", "int"):
                return self._rounded_to_integer(word, self._value(node.args[0]))
        raise CannotSayError(f"it calls {name}")

    def _product(self, left: _Value, right: _Value) -> _Value:
        if not isinstance(left, _Ratio) and not isinstance(right, _Ratio):
            return multiply(left, right)
        left, right = self._as_ratio(left), self._as_ratio(right)
        product = _Ratio(
            multiply(left.numerator, right.numerator),
            multiply(left.denominator, right.denominator),
            left.rounded or right.rounded,
        )
        exact = not product.rounded or _is_power_of_two(left) or _is_power_of_two(right)
        if not exact or self._magnitude(product.numerator) >= _EXACT:
            raise CannotSayError("it multiplies rounded fractions")
        return product

    def _quotient(self, left: _Value, right: _Value) -> _Ratio:
        left, right = self._as_ratio(left), self._as_ratio(right)
        if left.rounded or right.rounded:
            raise CannotSayError("it divides rounded fractions")
        if bounds(right.numerator, self._ranges)[0] <= 0:
            raise CannotSayError("it divides by what may be zero or negative")
        numerator = multiply(left.numerator, right.denominator)
        denominator = multiply(left.denominator, right.numerator)
        if self._magnitude(numerator) >= _EXACT:
            raise CannotSayError("it divides numbers that a float cannot hold")
        return _Ratio(numerator, denominator, not _is_power(denominator))

    def _rounded_to_integer(self, word: str, value: _Value) -> Expression:
        if not isinstance(value, _Ratio):
            return value
        numerator, denominator = value.numerator, value.denominator
        low, high = bounds(numerator, self._ranges)
        if low < 0 or high >= _EXACT:
            raise CannotSayError(f"rounding with {word} is not exact here")
        if word != "ceil":
            return divide(numerator, denominator)
        return divide(add(numerator, denominator, Number(-1)), denominator)

    def _compared(self, sign: str, left: _Value, right: _Value) -> Rule:
        if not isinstance(left, _Ratio) and not isinstance(right, _Ratio):
            return compare(sign, left, right)
        left, right = self._as_ratio(left), self._as_ratio(right)
        sides = multiply(left.numerator, right.denominator), multiply(right.numerator, left.denominator)
        if any(self._magnitude(side) >= _EXACT for side in sides):
            raise CannotSayError("it compares floats whose rounding may decide")
        return compare(sign, *sides)

    def _as_ratio(self, value: _Value) -> _Ratio:
        if isinstance(value, _Ratio):
            return value
        if self._magnitude(value) >= _EXACT:
            raise CannotSayError("a size has no upper bound that a float can hold")
        return _Ratio(value, Number(1), False)

    def _magnitude(self, expression: Expression) -> int:
        return max(map(abs, bounds(expression, self._ranges)))


def _constant(value: object) -> _Value:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CannotSayError(f"{value!r} is not a number")
    if isinstance(value, int):
        return Number(value)
    exact = Fraction(value)
    if exact.denominator < 2**20:
        return _Ratio(Number(exact.numerator), Number(exact.denominator), False)
    simple = exact.limit_denominator(1000)
    if float(simple) != value:
        raise CannotSayError(f"{value!r} is not a simple fraction")
    return _Ratio(Number(simple.numerator), Number(simple.denominator), True)


def _is_power_of_two(ratio: _Ratio) -> bool:
    return not ratio.rounded and _is_power(ratio.numerator) and _is_power(ratio.denominator)


def _is_power(expression: Expression) -> bool:
    return isinstance(expression, Number) and expression.value > 0 and expression.value.bit_count() == 1
