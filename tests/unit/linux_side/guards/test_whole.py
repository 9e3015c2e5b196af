"""Sizes that are multiplied by a factor become integer expressions, where those equal the floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import sympy
from torch.utils._sympy.functions import (
    CeilToInt,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Mod,
    ToFloat,
    TruncToInt,
)

from linux_side.guards.whole import whole_sizes

SIZE = sympy.Symbol("s0", integer=True, positive=True)
ROUNDING: dict[Any, Callable[[float], int]] = {TruncToInt: math.trunc, FloorToInt: math.floor, CeilToInt: math.ceil}


def _floats(expression: Any) -> bool:
    return bool(expression.has(ToFloat, TruncToInt, FloorToInt, CeilToInt, IntTrueDiv, FloatTrueDiv))


@pytest.mark.parametrize("function", ROUNDING)
@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0, 0.3, 1 / 3])
def test_a_size_times_a_factor_is_what_python_computes(function: Any, factor: float) -> None:
    with whole_sizes():
        expression = function(sympy.Float(factor) * ToFloat(SIZE))
    assert not _floats(expression)
    for size in range(1, 100):
        assert expression.subs(SIZE, size) == ROUNDING[function](size * factor)


@pytest.mark.parametrize("factor", [0.7, 2.7, 1 / 49])
def test_a_factor_whose_products_are_not_exact_stays_a_float(factor: float) -> None:
    with whole_sizes():
        assert _floats(TruncToInt(sympy.Float(factor) * ToFloat(SIZE)))
    assert _floats(TruncToInt(sympy.Float(0.5) * ToFloat(SIZE)))  # torch's own is back


def test_quotients_and_sums_of_sizes_are_what_python_computes() -> None:
    half, one = sympy.Float(0.5), sympy.Float(1.0)
    with whole_sizes():
        expressions: list[tuple[Any, Callable[[int], int]]] = [
            (CeilToInt(IntTrueDiv(SIZE, 16)), lambda n: math.ceil(n / 16)),
            (TruncToInt(IntTrueDiv(SIZE, 3)), lambda n: int(n / 3)),
            (TruncToInt(FloatTrueDiv(ToFloat(SIZE), sympy.Float(2.0))), lambda n: int(n / 2.0)),
            (FloorToInt((ToFloat(SIZE) - one) * half), lambda n: math.floor((n - 1.0) * 0.5)),
        ]
    for expression, python in expressions:
        assert not _floats(expression)
        assert all(expression.subs(SIZE, size) == python(size) for size in range(1, 100))


def test_windows_of_a_padded_picture_count_back_to_the_batch() -> None:
    batch, height = sympy.symbols("b h", integer=True, positive=True)
    with whole_sizes():
        padded = height + Mod(8 - Mod(height, 8), 8)
        windows = batch * FloorDiv(padded, 8)
        counted = TruncToInt(FloatTrueDiv(ToFloat(windows), FloatTrueDiv(ToFloat(padded), sympy.Float(8.0))))
    assert counted == batch


def test_a_quotient_of_sizes_is_what_python_computes() -> None:
    height, width = sympy.symbols("h w", integer=True, positive=True)
    with whole_sizes():
        quotient = TruncToInt(FloatTrueDiv(ToFloat(height + 1), FloatTrueDiv(IntTrueDiv(width, 4), sympy.Float(2.0))))
    assert not _floats(quotient)
    for h in range(1, 60):
        for w in range(1, 60):
            assert quotient.subs({height: h, width: w}) == int((h + 1) / (w / 4 / 2.0))
