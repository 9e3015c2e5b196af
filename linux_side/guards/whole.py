"""Rewrites sizes that go through a factor (``int(height * 0.25)``, ``math.ceil(width / 16)``) in whole numbers.

Torch expresses such a size with floats: ``TruncToInt(0.25*ToFloat(s0))``. Neither an artifact's guards nor its graph
may contain them. A formula of whole numbers is equivalent wherever the floats are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any
from unittest.mock import patch

import numpy as np
import sympy
from sympy.core.cache import clear_cache
from torch.utils._sympy.functions import (
    CeilToInt,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Mod,
    PythonMod,
    ToFloat,
    TruncToInt,
)

_LARGEST = 2**24  # a factor that is not a binary fraction is tested for sizes below this
_FINEST = 2**20  # the greatest denominator of a binary fraction

Ratio = tuple[Any, int]  # a whole-number expression and its denominator


@contextmanager
def whole_sizes() -> Iterator[None]:
    """Makes torch express the sizes that it traces in whole numbers where that is exact."""
    with ExitStack() as stack:
        for function, whole in _WHOLE.items():
            stack.enter_context(patch.object(function, "eval", classmethod(_before(function.eval, whole))))
        clear_cache()
        yield
    clear_cache()


def _before(original: Callable[..., Any], whole: Callable[..., Any]) -> Callable[..., Any]:
    def evaluate(_cls: Any, *numbers: Any) -> Any:
        found = original(*numbers)
        return whole(*numbers) if found is None else found

    return evaluate


def _truncated(number: Any) -> Any:
    if (count := _count(number)) is not None:
        return count
    ratio = _ratio(number)
    return FloorDiv(*ratio) if ratio and ratio[0].is_nonnegative else None


def _floor(number: Any) -> Any:
    ratio = _ratio(number)
    return FloorDiv(*ratio) if ratio else None


def _ceiling(number: Any) -> Any:
    ratio = _ratio(number)
    return FloorDiv(ratio[0] + ratio[1] - 1, ratio[1]) if ratio else None


def _quotient(number: Any, divisor: Any) -> Any:
    """Simplifies the quotient of a size that was padded to a multiple of the divisor."""
    padded = {
        found: step * FloorDiv(size + step - 1, step) - size
        for found in (number * divisor).atoms(Mod, PythonMod)
        for size, step in _padding(found)
    }
    if not padded:
        return None
    quotient = FloorDiv(number.xreplace(padded), divisor.xreplace(padded))
    return quotient if not isinstance(quotient, FloorDiv) or quotient.args[1].is_Integer else None


def _padding(remainder: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the size and the step if the expression is ``(step - size % step) % step``."""
    number, step = remainder.args
    inner = step - number
    if step.is_Integer and step > 0 and isinstance(inner, (Mod, PythonMod)) and inner.args[1] == step:
        yield inner.args[0], step


def _count(number: Any) -> Any:
    """Rewrites a truncated quotient such as ``windows / (height * width / 8 / 8)`` as a quotient of whole numbers.

    Floats round such a quotient only once, so it is not rounded up to a whole number unless the dividend exceeds 2**53.
    """
    if not isinstance(number, (IntTrueDiv, FloatTrueDiv)):
        return None
    of, by = map(_exact, number.args)
    if of is None or by is None or by[0].is_number or not (of[0].is_nonnegative and by[0].is_nonnegative):
        return None
    return FloorDiv(of[0] * by[1], by[0] * of[1])


_WHOLE: dict[Any, Callable[..., Any]] = {
    TruncToInt: _truncated,
    FloorToInt: _floor,
    CeilToInt: _ceiling,
    FloorDiv: _quotient,
}


def _ratio(number: Any) -> Ratio | None:
    """Returns a float expression as a ratio if floats compute its whole-number results exactly; otherwise None."""
    if isinstance(number, IntTrueDiv) and number.args[1].is_Integer and number.args[1] > 0:
        return number.args[0], int(number.args[1])  # rounded once, so a fraction does not become a whole number
    if isinstance(number, sympy.Mul) and len(number.args) == 2:
        factor, size = number.args
        if factor.is_Float and isinstance(size, ToFloat) and (simple := _simple(float(factor))):
            return size.args[0] * simple.numerator, simple.denominator
    return _exact(number)


@lru_cache(maxsize=1024)
def _simple(factor: float) -> Fraction | None:
    """Returns the fraction that a factor stands for (``1/3``), if floats compute every whole product exactly."""
    fraction = Fraction(factor).limit_denominator(4096)
    if factor <= 0 or float(fraction) != factor:
        return None
    wholes = np.arange(0, _LARGEST, fraction.denominator, dtype=np.float64)
    exact = np.arange(len(wholes), dtype=np.float64) * fraction.numerator
    return fraction if np.array_equal(wholes * factor, exact) else None


def _exact(number: Any) -> Ratio | None:
    """Returns an expression of binary fractions, which floats compute exactly, as a ratio; otherwise None."""
    if isinstance(number, ToFloat):
        return number.args[0], 1
    if number.is_Float or number.is_Integer:
        fraction = Fraction(float(number))
        return (sympy.Integer(fraction.numerator), fraction.denominator) if fraction.denominator <= _FINEST else None
    if isinstance(number, (IntTrueDiv, FloatTrueDiv)):
        divisor = Fraction(float(number.args[1])) if number.args[1].is_number else Fraction(0)
        if divisor <= 0 or divisor.numerator & (divisor.numerator - 1):
            return None
        inner = (number.args[0], 1) if isinstance(number, IntTrueDiv) else _exact(number.args[0])
        return _product(inner, (sympy.Integer(divisor.denominator), divisor.numerator)) if inner else None
    if isinstance(number, (sympy.Add, sympy.Mul)):
        ratios = [ratio for ratio in map(_exact, number.args) if ratio]
        if len(ratios) == len(number.args):
            return reduce(_sum if number.is_Add else _product, ratios)
    return None


def _sum(one: Ratio, other: Ratio) -> Ratio:
    return one[0] * other[1] + other[0] * one[1], one[1] * other[1]


def _product(one: Ratio, other: Ratio) -> Ratio:
    return one[0] * other[0], one[1] * other[1]
