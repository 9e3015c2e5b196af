"""A guard that excludes many sizes of few kinds is tried at some sizes of each kind; one of many kinds is not tried."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch")

from linux_side.guards.collect import Found
from linux_side.guards.refuted import Sizes, sizes_to_try
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Size, parse_rule, sizes_in


def _excluded(text: str, low: int, high: int) -> list[Sizes]:
    rule = parse_rule(text)
    sizes, guard = list(dict.fromkeys(sizes_in(rule))), Guards([rule])
    choices = itertools.product(range(low, high + 1), repeat=len(sizes))
    return [tuple(zip(sizes, values, strict=True)) for values in choices if guard.violated(values)]


@pytest.mark.parametrize(
    ("text", "tried"),
    [
        ("max(1, (x.3 + 63) // 64) != 1", [(33,), (49,), (64,)]),  # one window
        ("x.3 // 16 == 3", [(33,), (40,), (47,), (64,), (72,), (79,), (80,), (88,), (95,), (96,)]),
        ("x.2 // 14 * (x.3 // 14) != 9", [(42, 42), (49, 42), (55, 55), (42, 49)]),
        ("x.3 // (x.3 // 64) == 1", None),  # below 64 it divides by zero, and from there each is a kind of its own
        ("x.3 % 32 == 0", None),
    ],
)
def test_sizes_of_one_kind_are_tried_at_the_ends_and_the_middle(text: str, tried: list[tuple[int, ...]] | None) -> None:
    found = sizes_to_try(Found(parse_rule(text)), _excluded(text, 33, 60 if "14" in text else 96))
    values = None if found is None else [tuple(value for _, value in sizes) for sizes in found]
    assert values == tried


def test_few_sizes_are_all_tried() -> None:
    assert sizes_to_try(Found(parse_rule("x.0 != 1")), [((Size("x", 0), 1),)]) == [((Size("x", 0), 1),)]
