"""How the sizes of a program's inputs depend on each other, and what each of torch's symbols is in terms of them."""

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
        expressions: each size that varies, as torch has it: a symbol, or an expression of symbols (``2*s0``).
        symbols: each symbol as an expression of sizes: the first size that is it, or ``(x.1 - 3) // 32`` where
            ``x.1`` is ``32*s0 + 3`` and no size is ``s0`` itself.
        ranges: of each size.
        rules: what a size must be, where a symbol was found from it.
        steps: of those, the factor of the symbol and what is added.
    """

    expressions: dict[Size, Any] = field(default_factory=dict)
    symbols: dict[str, Expression] = field(default_factory=dict)
    ranges: dict[Size, Range] = field(default_factory=dict)
    rules: dict[Size, Rule] = field(default_factory=dict)
    steps: dict[Size, tuple[int, int]] = field(default_factory=dict)

    def rule_of(self, size: Size) -> Rule | None:
        """What a size must be, where it is made of other sizes and is not simply equal to one.

        Raises:
            BuildFailedError: our grammar cannot say it.
        """
        expression = self.expressions[size]
        if size in self.rules:
            return self.rules[size]
        if expression.is_Symbol or expression in [self.expressions[other] for other in self.rules]:
            return None
        try:
            said = self.said(size)
        except CannotSayError as error:
            raise BuildFailedError(
                f"{size} is always {expression}, which an artifact cannot check: {error}",
                where=f"input {size.input}, dimension {size.dim}",
                remedy="export the program with other dynamic dimensions",
            ) from error
        return compare("==", size, said)

    def resolve(self, node: Any) -> Expression | None:
        """What a name in torch's text of an expression stands for."""
        return self.symbols.get(getattr(node, "id", ""))

    def said(self, size: Size) -> Expression:
        """A size in terms of those that others are made of.

        Raises:
            CannotSayError: our grammar cannot say it.
        """
        if size in self.rules:
            return size
        return translate_number(text_of(self.expressions[size]), self.resolve, self.ranges)

    def symbol_of(self, size: Size, value: int) -> tuple[str, int] | None:
        """The symbol that a size alone tells, and its value; None where other sizes tell it, or no value fits."""
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
        """The sizes that tell the symbols, one for each; all others are made of these."""
        first = {expression: size for size, expression in reversed(self.expressions.items())}
        return [
            size for size, e in self.expressions.items() if size in self.rules or (e.is_Symbol and first[e] == size)
        ]

    def completed(self, sizes: Mapping[Size, int]) -> dict[Size, int] | None:
        """Every varying size, where the free ones have these values; None where no symbols give them."""
        told = [self.symbol_of(size, sizes[size]) for size in self.free]
        return None if None in told else self.at(dict(filter(None, told)))

    def at(self, values: Mapping[str, int]) -> dict[Size, int]:
        """Each size, where torch's symbols have these values."""
        return {size: self.made_of(size, values) for size in self.expressions}

    def made_of(self, size: Size, values: Mapping[str, int]) -> int:
        """A size, where torch's symbols have these values."""
        expression = self.expressions[size]
        return int(
            expression.xreplace({symbol: sympy.Integer(values[str(symbol)]) for symbol in expression.free_symbols})
        )

    def shares_symbol(self, one: Size, other: Size) -> bool:
        """Whether two sizes depend on each other."""
        return bool(self.expressions[one].free_symbols & self.expressions[other].free_symbols)


def input_sizes(names: Sequence[str], values: Sequence[Any], ranges: Mapping[Any, Any]) -> InputSizes:
    """Reads the sizes of a program's inputs.

    Args:
        names: of the inputs' leaves.
        values: the leaves as torch traced them.
        ranges: the program's range constraints.

    Raises:
        BuildFailedError: a size is made of what cannot be found from the inputs' sizes.
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
    """The least and the greatest value of a symbolic size; None where it has no bound."""
    symbols = {symbol: found for symbol, found in ranges.items() if symbol.is_Symbol}
    found = bound_sympy(expression, symbols)
    if expression in ranges:  # the range of 32*s0 may be wider than its symbol's: torch traces no size of 0 or 1
        own = ranges[expression]
        found = ValueRanges(own.lower, own.upper)
    high = found.upper
    return int(found.lower), int(high) if high.is_number and high.is_finite and high < 2**62 else None


def text_of(expression: Any) -> str:
    """An expression as torch writes it, as Python, its symbols by their names."""
    return str(PythonPrinter().doprint(expression))


def _solve(place: Size, sizes: InputSizes) -> None:
    """Finds the one symbol of a linear expression that no size is by itself."""
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
    """``factor`` and ``offset`` of ``factor * symbol + offset``."""
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
