"""Finds sizes that have one value only, though torch keeps a formula for them."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

_Range = tuple[int, int]
_TRIED = 1024  # the most choices of sizes at which a formula is computed
_FAR = 1024  # how far above its least value a size without a limit is tried


def fixed_value(size: int | torch.SymInt) -> int | None:
    """Returns the value of a size that has one only, which for a formula follows from ranges or a guard; else None.

    Torch still knows the guards that :mod:`linux_side.frontend.refuted_guards` has dropped, and takes them for true. So
    the formula is also computed at sizes that the ranges and the guards that are left allow.
    """
    if isinstance(size, int):
        return size
    expression, environment = size.node.expr, size.node.shape_env
    if expression.is_Symbol or not size.node.has_hint() or not statically_known_true(size == size.node.hint):
        return None
    symbols = sorted(expression.free_symbols, key=str)
    ranges = tuple((symbol, _range(environment.var_to_range[symbol])) for symbol in symbols)
    guards = tuple(guard.expr for guard in environment.guards if guard.expr.free_symbols <= expression.free_symbols)
    value = int(size.node.hint)
    return value if _is_everywhere(expression, ranges, guards, value) else None


def _range(known: Any) -> _Range:
    low = int(known.lower)
    return low, int(known.upper) if known.upper.is_finite else low + _FAR


@cache
def _is_everywhere(
    expression: Any, ranges: tuple[tuple[Any, _Range], ...], guards: tuple[Any, ...], value: int
) -> bool:
    """Returns whether a formula has this value at sizes all over the ranges, if the guards allow them."""
    symbols = [symbol for symbol, _ in ranges]
    count = int(_TRIED ** (1 / max(len(ranges), 1)))
    for chosen in itertools.product(*(_spread(low, high, count) for _, (low, high) in ranges)):
        sizes = dict(zip(symbols, chosen, strict=True))
        if all(_computed(guard, sizes) for guard in guards) and _computed(expression, sizes) != value:
            return False
    return True


def _spread(low: int, high: int, count: int) -> list[int]:
    """Returns at most ``count`` whole numbers, and at least both ends, at even distances."""
    parts = max(1, min(count - 1, high - low))
    return sorted({low + (high - low) * part // parts for part in range(parts + 1)})


def _computed(expression: Any, sizes: dict[Any, int]) -> Any:
    try:
        return sympy_interp(PythonReferenceAnalysis, sizes, expression)
    except ZeroDivisionError:
        return None
