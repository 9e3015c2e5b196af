"""Guards with ranges of sizes: contradictions, the message about a violation, and the nearest sizes that fit."""

from __future__ import annotations

import time

import pytest

from toolchain.guards.bounds import Range
from toolchain.guards.describe import complaint, summary
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import GuardError, Size, parse_rule
from toolchain.guards.search import nearest

X0, X1, Y1 = Size("x", 0), Size("x", 1), Size("y", 1)
RANGES: dict[Size, Range] = {X0: (1, 8), X1: (2, 24), Y1: (4, 48)}


@pytest.mark.parametrize(
    ("guards", "why"),
    [
        (["z.0 == 1"], "names z.0, which no input has"),
        (["x.7 == 1"], "names x.7, which no input has"),
        (["x.1 > 24"], "not true of any sizes"),
        (["x.0 * x.1 == 1000"], "not true of any sizes"),
        (["x.1 // (2 - 2) == 1"], "divides by zero"),
        (["x.1 % 16 == 0", "x.1 % 3 == 0"], "no value of x.1 from 2 to 24 satisfies"),
    ],
)
def test_guards_that_no_call_can_satisfy(guards: list[str], why: str) -> None:
    with pytest.raises(GuardError, match=why):
        Guards.parse(guards, RANGES)


def test_a_guard_that_divides_by_zero_in_a_call_refuses_the_call() -> None:
    guards = Guards.parse(["x.1 // (x.0 - 2) == 4"], RANGES)
    assert guards.holds({X1: 4, X0: 3})
    assert not guards.holds({X1: 4, X0: 2})


def test_the_longest_guards_are_checked_in_bounded_time() -> None:
    texts = [
        "1" + "+x.0" * 490 + ">1",
        "x.0" + "*x.1" * 390 + ">1",
        "x.0>0" + " and x.0>0" * 190,
        "x.1>1" + " or x.1>1" * 200,
    ]
    guards = Guards.parse(texts * 10, RANGES)
    start = time.process_time()
    assert guards.holds({X0: 3, X1: 20})
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x.1 % 8 == 0", "x: dimension 1 is 20; it must be a multiple of 8"),
        ("x.1 % 8 == 3", "x: dimension 1 is 20; it must be a multiple of 8 plus 3"),
        ("x.1 % 2 != 0", "x: dimension 1 is 20; it must not be a multiple of 2"),
        ("x.1 != 20", "x: dimension 1 is 20; it must not be 20"),
        ("x.1 > 20", "x: dimension 1 is 20; it must be above 20"),
        ("x.1 == 6", "x: dimension 1 is 20; it must be 6"),
        ("y.1 == 2 * x.1", "y: dimension 1 is 41 and x: dimension 1 is 20; y.1 must be 2 * x.1"),
        ("x.0 * x.1 > 100", "x: dimension 0 is 3 and x: dimension 1 is 20; the model needs x.0 * x.1 > 100"),
        ("x.1 // 4 != 5", "x: dimension 1 is 20; the model needs x.1 // 4 != 5"),
    ],
)
def test_a_violation_names_inputs_dimensions_sizes_and_the_rule(rule: str, said: str) -> None:
    sizes = {X0: 3, X1: 20, Y1: 41}
    violated = Guards([parse_rule(rule)], sizes).violated(list(sizes.values()))
    assert violated is not None and complaint(violated, sizes) == said


def test_the_summary_has_a_line_for_each_size() -> None:
    rules = list(map(parse_rule, ["x.1 % 8 == 0", "y.1 == 2 * x.1", "x.1 != 16", "x.0 * x.1 > 100"]))
    assert summary(rules, RANGES | {Y1: (4, None)}) == [
        "x.1: 2 to 24, a multiple of 8, not 16",
        "y.1: 4 to any, 2 * x.1",
        "x.0 * x.1 > 100",
    ]


def test_the_nearest_sizes() -> None:
    eight = Guards([parse_rule("x.1 % 8 == 0")])
    assert nearest(eight, {X1: 20}, RANGES) == [{X1: 16}, {X1: 24}]
    assert nearest(eight, {X1: 2}, RANGES) == [{X1: 8}]
    assert nearest(eight, {X1: 16, X0: 3}, RANGES) == [{X1: 16, X0: 3}]
    assert nearest(eight, {X1: 9}, {X1: (9, 15)}) == []
    assert nearest(eight, {X1: 3}, {X1: (20, None)}) == [{X1: 24}]
    product = Guards([parse_rule("x.0 * x.1 > 100")])
    assert nearest(product, {X0: 6, X1: 16}, RANGES) == [{X0: 7, X1: 16}]  # nearer than 17 by 6: as near, and the first
    both = Guards([parse_rule("x.0 == 5"), parse_rule("x.1 == 9")])
    assert nearest(both, {X0: 3, X1: 7}, RANGES) == [{X0: 5, X1: 9}]
    assert nearest(product, {X0: 1, X1: 1}, {}) == []
