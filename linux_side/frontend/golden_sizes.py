"""Chooses the sizes of golden samples, and crops or tiles the example to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram

from linux_side.frontend.dynamic_shapes import narrowed_ranges, user_values
from linux_side.frontend.leaves import symbol_bounds
from linux_side.guards.profiles import Profiles

_REACH = 128  # how far from a wanted size the search for an allowed one goes
_TRIES = 256  # the most sizes to try
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)

Sizes = dict[sympy.Symbol, int]


class SampleSizes:
    """Sizes for the calls of a program, as a value for each symbol of its inputs' shapes.

    Attributes:
        example: the sizes of the example; empty if nothing is dynamic or a symbol cannot be determined.
    """

    def __init__(
        self, program: ExportedProgram, profiles: Profiles, leaves: Sequence[Any], guards: Callable[..., Any] | None
    ) -> None:
        """Prepares the search for sizes that the profiles and the program's guards allow.

        Args:
            program: the exported program.
            profiles: for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.
            leaves: the leaves of the example.
            guards: torch's own checks of the program's inputs, which raise AssertionError; None for no checks.
        """
        self._values = user_values(program)
        self._leaves = leaves
        self._profiles = profiles
        self.example = example_sizes(self._values, leaves)
        ranges = narrowed_ranges(program, profiles)
        self._limits = {symbol: symbol_bounds(symbol, ranges) for symbol in self.example}
        self._guards = guards

    def others(self) -> Iterator[Sizes]:
        """Yields distinct sizes that the program takes: the least, the greatest, and then sizes between."""
        seen = [self.example]
        for wanted in itertools.islice(self._wanted(), _TRIES) if self.example else ():
            sizes = self._nearest(wanted)
            if sizes not in seen:
                seen.append(sizes)
                yield sizes

    def leaves_at(self, sizes: Sizes) -> list[Any]:
        """Returns the example's leaves, cropped or tiled to other sizes; every value is one of the example's."""
        return [leaf if shape is None else _tiled(leaf, shape) for leaf, shape in self._shaped(sizes)]

    def _shaped(self, sizes: Sizes) -> list[tuple[Any, list[int] | None]]:
        return [(leaf, _shape(value, sizes)) for leaf, value in zip(self._leaves, self._values, strict=True)]

    def _wanted(self) -> Iterator[Sizes]:
        limits = {s: (low, self.example[s] if high is None else high) for s, (low, high) in self._limits.items()}
        yield {symbol: low for symbol, (low, _) in limits.items()}
        yield {symbol: high for symbol, (_, high) in limits.items()}
        for count in itertools.count(1):  # each symbol has a sequence of its own, so that sizes differ within a sample
            yield {
                symbol: low + round((high - low) * _fraction(count, _PRIMES[place % len(_PRIMES)]))
                for place, (symbol, (low, high)) in enumerate(limits.items())
            }

    def _nearest(self, wanted: Sizes) -> Sizes:
        """Returns allowed sizes near the wanted ones, found one symbol after the other from the example's sizes."""
        if self._allows(wanted):
            return wanted
        found = self.example
        for _ in range(2):  # the allowed values of one size may depend on the others
            for symbol, size in wanted.items():
                near = (found | {symbol: number} for number in _outward(size))
                found = next(filter(self._allows, near), found)
        return found

    def _allows(self, sizes: Sizes) -> bool:
        for symbol, (low, high) in self._limits.items():
            if sizes[symbol] < low or (high is not None and sizes[symbol] > high):
                return False
        if self._profiles and not any(_within(sizes, profile) for profile in self._profiles):
            return False
        if self._guards is None:
            return True
        shaped = self._shaped(sizes)
        try:  # torch's own checks read shapes and plain numbers, so meta tensors suffice
            self._guards(*(leaf if shape is None else torch.empty(shape, device="meta") for leaf, shape in shaped))
        except AssertionError:
            return False
        return True


def example_sizes(values: Sequence[Any], leaves: Sequence[Any]) -> Sizes:
    """Returns each symbol's value; empty if one of them cannot be determined.

    Args:
        values: the value of each leaf in the program: a fake tensor, a symbolic number, or None.
        leaves: the leaves of the example's call.
    """
    found: Sizes = {}
    symbols: dict[sympy.Symbol, None] = {}
    for value, leaf in zip(values, leaves, strict=True):
        for size, number in zip(*_dimensions(value, leaf), strict=True):
            if isinstance(size, torch.SymInt):
                symbols.update(dict.fromkeys(sorted(size.node.expr.free_symbols, key=str)))
                if len(size.node.expr.free_symbols) == 1:
                    (symbol,) = size.node.expr.free_symbols
                    found.setdefault(symbol, _solved(size.node.expr, symbol, number))
    return {symbol: found[symbol] for symbol in symbols} if symbols.keys() <= found.keys() else {}


def _dimensions(value: Any, leaf: Any) -> tuple[Sequence[Any], Sequence[int]]:
    if isinstance(value, torch.Tensor) and isinstance(leaf, torch.Tensor):
        return value.shape, leaf.shape
    return (), ()


def _solved(expression: sympy.Expr, symbol: sympy.Symbol, number: int) -> int:
    if expression.is_Symbol:
        return number
    return int(next(iter(sympy.solve(sympy.Eq(expression, number), symbol))))


def _shape(value: Any, sizes: Mapping[Any, int]) -> list[int] | None:
    if not isinstance(value, torch.Tensor):
        return None
    return [size if isinstance(size, int) else int(size.node.expr.subs(sizes)) for size in value.shape]


def _tiled(leaf: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    for dim, size in enumerate(shape):
        if size != leaf.shape[dim]:
            leaf = leaf.index_select(dim, torch.arange(size) % max(leaf.shape[dim], 1))
    return leaf


def _within(sizes: Sizes, profile: Mapping[str, Mapping[str, int]]) -> bool:
    ranges = {symbol: profile[str(symbol)] for symbol in sizes if str(symbol) in profile}
    return all(limits["min"] <= sizes[symbol] <= limits["max"] for symbol, limits in ranges.items())


def _outward(size: int) -> Iterator[int]:
    """Yields the size and those around it, the nearest first."""
    yield size
    for distance in range(1, _REACH):
        yield size + distance
        yield size - distance


def _fraction(count: int, base: int) -> float:
    """Returns an element of the van der Corput sequence: 1/2, 1/4, 3/4, 1/8, ... for base 2."""
    result, part = 0.0, 1.0
    while count:
        count, digit = divmod(count, base)
        part /= base
        result += digit * part
    return result
