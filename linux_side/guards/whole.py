"""Sizes that go through a factor (``int(height * 0.25)``, ``math.ceil(width / 16)``), in whole numbers.

Torch writes such a size with floats: ``TruncToInt(0.25*ToFloat(s0))``. Neither an artifact's guards nor its graph may
hold one. Whole numbers say the same wherever a float computes it exactly.
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

_LARGEST = 2**24  # size up to which a factor that is no binary fraction is tried
_FINEST = 2**20  # denominator

Ratio = tuple[Any, int]  # a whole expression over a number


@contextmanager
def whole_sizes() -> Iterator[None]:
    """Lets torch make whole expressions of the sizes that it traces."""
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
    """Of sizes that were padded to a multiple, which the multiple divides."""
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
    """The size and the step, of ``(step - size % step) % step``."""
    number, step = remainder.args
    inner = step - number
    if step.is_Integer and step > 0 and isinstance(inner, (Mod, PythonMod)) and inner.args[1] == step:
        yield inner.args[0], step


def _count(number: Any) -> Any:
    """Of ``windows / (height * width / 8 / 8)``: the quotient of whole numbers.

    Floats round it once. So it is not rounded up to a whole number, unless what is divided is above 2**53.
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
    """A float expression as a ratio, where floats compute it so that whole numbers come out whole."""
    if isinstance(number, IntTrueDiv) and number.args[1].is_Integer and number.args[1] > 0:
        return number.args[0], int(number.args[1])  # rounded once: what is no whole number stays none
    if isinstance(number, sympy.Mul) and len(number.args) == 2:
        factor, size = number.args
        if factor.is_Float and isinstance(size, ToFloat) and (simple := _simple(float(factor))):
            return size.args[0] * simple.numerator, simple.denominator
    return _exact(number)


@lru_cache(maxsize=1024)
def _simple(factor: float) -> Fraction | None:
    """The fraction that a factor stands for (``1/3``), if each product that is whole is computed as that."""
    fraction = Fraction(factor).limit_denominator(4096)
    if factor <= 0 or float(fraction) != factor:
        return None
    wholes = np.arange(0, _LARGEST, fraction.denominator, dtype=np.float64)
    exact = np.arange(len(wholes), dtype=np.float64) * fraction.numerator
    return fraction if np.array_equal(wholes * factor, exact) else None


def _exact(number: Any) -> Ratio | None:
    """A ratio of binary fractions, with which floats make no error."""
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
