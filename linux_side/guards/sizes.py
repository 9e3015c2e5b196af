"""The relations between the sizes of a program's inputs, and each of torch's symbols in terms of those sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.utils._sympy.printers import PythonPrinter
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from linux_side.guards.algebra import Rule, add, compare, divide, multiply, remainder
from linux_side.guards.translate import CannotSayError, translate_number
from toolchain.errors import BuildFailedError
from toolchain.guards.bounds import Range
from toolchain.guards.grammar import Expression, Number, Size


@dataclass
class InputSizes:
    """The varying sizes of a program's inputs.

    Attributes:
        expressions: torch's expression of each varying size: a symbol, or an expression of symbols (``2*s0``).
        symbols: each symbol as an expression of sizes: the first size that equals it, or ``(x.1 - 3) // 32`` if
            ``x.1`` is ``32*s0 + 3`` and no size equals ``s0``.
        ranges: the range of each size.
        rules: the condition on each size that a symbol was computed from (``(x.1 - 3) % 32 == 0``).
        steps: for each of those sizes, the factor of the symbol and the offset (``32`` and ``3``).
    """

    expressions: dict[Size, Any] = field(default_factory=dict)
    symbols: dict[str, Expression] = field(default_factory=dict)
    ranges: dict[Size, Range] = field(default_factory=dict)
    rules: dict[Size, Rule] = field(default_factory=dict)
    steps: dict[Size, tuple[int, int]] = field(default_factory=dict)

    def rule_of(self, size: Size) -> Rule | None:
        """Returns the condition on a size that depends on other sizes; None if there is none or it equals one of them.

        Raises:
            BuildFailedError: our grammar cannot express it.
        """
        expression = self.expressions[size]
        if size in self.rules:
            return self.rules[size]
        if expression.is_Symbol or expression in [self.expressions[other] for other in self.rules]:
            return None
        try:
            expressed = self.expressed(size)
        except CannotSayError as error:
            raise BuildFailedError(
                f"{size} is always {expression}, which an artifact cannot check: {error}",
                where=f"input {size.input}, dimension {size.dim}",
                remedy="export the program with other dynamic dimensions",
            ) from error
        return compare("==", size, expressed)

    def resolve(self, node: Any) -> Expression | None:
        """Returns the expression of sizes for a name in torch's text; None if the name is not a symbol."""
        return self.symbols.get(getattr(node, "id", ""))

    def expressed(self, size: Size) -> Expression:
        """Returns a size as an expression of the sizes that determine the symbols.

        Raises:
            CannotSayError: our grammar cannot express it.
        """
        if size in self.rules:
            return size
        return translate_number(text_of(self.expressions[size]), self.resolve, self.ranges)

    def symbol_of(self, size: Size, value: int) -> tuple[str, int] | None:
        """Returns the symbol that a size alone determines, and its value.

        Args:
            size: the size.
            value: the size's value.

        Returns:
            The symbol's name and value; None if other sizes determine it, or if no value of the symbol fits.
        """
        expression = self.expressions[size]
        if expression.is_Symbol:
            return str(expression), value
        if size not in self.rules:
            return None
        factor, offset = self.steps[size]
        whole, left = divmod(value - offset, factor)
        return None if left else (str(next(iter(expression.free_symbols))), whole)

    @property
    def free(self) -> list[Size]:
        """The sizes that determine the symbols, one for each; all other sizes follow from these."""
        first = {expression: size for size, expression in reversed(self.expressions.items())}
        return [
            size for size, e in self.expressions.items() if size in self.rules or (e.is_Symbol and first[e] == size)
        ]

    def completed(self, sizes: Mapping[Size, int]) -> dict[Size, int] | None:
        """Returns every varying size, given the values of the free ones; None if no values of the symbols fit."""
        told = [self.symbol_of(size, sizes[size]) for size in self.free]
        return None if None in told else self.at(dict(filter(None, told)))

    def at(self, values: Mapping[str, int]) -> dict[Size, int]:
        """Returns each size, given the values of torch's symbols."""
        return {size: self.made_of(size, values) for size in self.expressions}

    def made_of(self, size: Size, values: Mapping[str, int]) -> int:
        """Returns a size, given the values of torch's symbols."""
        expression = self.expressions[size]
        return int(
            expression.xreplace({symbol: sympy.Integer(values[str(symbol)]) for symbol in expression.free_symbols})
        )

    def shares_symbol(self, one: Size, other: Size) -> bool:
        """Returns whether two sizes depend on a common symbol."""
        return bool(self.expressions[one].free_symbols & self.expressions[other].free_symbols)


def input_sizes(names: Sequence[str], values: Sequence[Any], ranges: Mapping[Any, Any]) -> InputSizes:
    """Reads the sizes of a program's inputs.

    Args:
        names: the names of the inputs' leaves.
        values: the values of the leaves, as torch traced them.
        ranges: the program's range constraints.
    """
    sizes = InputSizes()
    for name, value in zip(names, values, strict=True):
        for dim, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, torch.SymInt):
                sizes.expressions[Size(name, dim)] = size.node.expr
    for place, expression in sizes.expressions.items():
        sizes.ranges[place] = range_of(expression, ranges)
        if expression.is_Symbol:
            sizes.symbols.setdefault(str(expression), place)
    for place in sorted(sizes.expressions, key=lambda place: _steepness(sizes.expressions[place])):
        _solve(place, sizes)
    return sizes


def range_of(expression: Any, ranges: Mapping[Any, Any]) -> Range:
    """Returns the least and the greatest value of a symbolic size; None for the greatest if it has no bound."""
    symbols = {symbol: found for symbol, found in ranges.items() if symbol.is_Symbol}
    found = bound_sympy(expression, symbols)
    if expression in ranges:  # the range of 32*s0 may be wider than that of s0, which excludes 0 and 1
        own = ranges[expression]
        found = ValueRanges(own.lower, own.upper)
    high = found.upper
    return int(found.lower), int(high) if high.is_number and high.is_finite and high < 2**62 else None


def text_of(expression: Any) -> str:
    """Returns an expression as Python text in torch's form, with the names of its symbols."""
    return str(PythonPrinter().doprint(expression))


def _solve(place: Size, sizes: InputSizes) -> None:
    """Solves a linear expression for its symbol, if no size equals that symbol."""
    expression = sizes.expressions[place]
    unknown = [symbol for symbol in expression.free_symbols if str(symbol) not in sizes.symbols]
    if not unknown or (linear := _linear(expression)) is None:
        return
    factor, offset = linear
    distance = add(place, Number(-offset)) if factor > 0 else add(Number(offset), multiply(Number(-1), place))
    sizes.symbols[str(unknown[0])] = divide(distance, Number(abs(factor)))
    sizes.steps[place] = linear
    sizes.rules[place] = compare("==", remainder(distance, Number(abs(factor))), Number(0))


def _linear(expression: Any) -> tuple[int, int] | None:
    """Returns factor and offset of ``factor * symbol + offset``; None for any other expression."""
    symbols = list(expression.free_symbols)
    if len(symbols) != 1 or not expression.is_polynomial(symbols[0]):
        return None
    coefficients = sympy.Poly(expression, symbols[0]).all_coeffs()
    if len(coefficients) != 2 or not all(coefficient.is_Integer for coefficient in coefficients):
        return None
    return int(coefficients[0]), int(coefficients[1])


def _steepness(expression: Any) -> int:
    linear = _linear(expression)
    return abs(linear[0]) if linear else 2**62
