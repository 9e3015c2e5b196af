"""The grammar of guards: what is read, what is refused, and that a guard means what its text means in Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.guards.bounds import bounds
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import (
    COMPARISONS,
    DEPTH_LIMIT,
    LENGTH_LIMIT,
    Expression,
    GuardError,
    Number,
    Operation,
    Size,
    parse_rule,
)

X, Y = Size("x", 0), Size("a b", 1)

numbers = st.recursive(
    st.sampled_from([X, Y]) | st.integers(-5, 20).map(Number),
    lambda inner: (
        st.tuples(st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]), inner, inner).map(
            lambda of: Operation(of[0], of[1:])
        )
        | inner.map(lambda operand: Operation("-", (operand,)))
    ),
    max_leaves=6,
)
rules = st.recursive(
    st.tuples(st.sampled_from(COMPARISONS), numbers, numbers).map(lambda of: Operation(of[0], of[1:])),
    lambda inner: (
        st.tuples(st.sampled_from(["and", "or"]), inner, inner).map(lambda of: Operation(of[0], of[1:]))
        | inner.map(lambda rule: Operation("not", (rule,)))
    ),
    max_leaves=4,
)


def plainly(expression: Expression, sizes: dict[Size, int]) -> int:
    """Evaluates an expression by Python's own operators."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Size):
        return sizes[expression]
    if expression.operator in ("and", "or"):
        return (all if expression.operator == "and" else any)(plainly(part, sizes) for part in expression.operands)
    a, *rest = [plainly(operand, sizes) for operand in expression.operands]
    match expression.operator:
        case "-" if not rest:
            return -a
        case "not":
            return not a
        case "min" | "max":
            return (min if expression.operator == "min" else max)(a, *rest)
    for b in rest:
        a = eval(f"({a}) {expression.operator} ({b})")
    return a


@given(rules, st.integers(0, 12), st.integers(0, 12))
def test_a_guard_comes_to_what_its_text_says_in_python(rule: Operation, x: int, y: int) -> None:
    sizes = {X: x, Y: y}
    try:
        want = bool(plainly(rule, sizes))
        divides = True
    except ZeroDivisionError:
        want, divides = False, False
    try:
        again = parse_rule(str(rule))
    except GuardError as error:
        assert "zero" in str(error)
        return
    assert Guards([rule], sizes).holds(sizes) is Guards([again], sizes).holds(sizes) is want
    if divides:
        text = str(rule).replace('"a b".1', str(y)).replace("x.0", str(x))
        assert bool(eval(text)) is want


@given(rules, st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_bounds_are_never_too_narrow(rule: Operation, low: int, more: int, y: int, at: int) -> None:
    ranges = {X: (low, low + more), Y: (y, y)}
    try:
        found = bounds(rule, ranges)
        value = plainly(rule, {X: low + min(at, more), Y: y})
    except ZeroDivisionError:
        return
    assert found[0] <= int(value) <= found[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x.0", "is a number"),
        ("x.0 == 1 == 1", "not expected"),
        ("x.0 < 3 < 4", "not expected"),
        ("(x.0 == 1) == 1", "not for what is true or false"),
        ("x.0 and 1 == 1", "not for numbers"),
        ("1 + (x.0 == 1) == 2", "not for what is true or false"),
        ("x.0 == ", "breaks off"),
        ("", "breaks off"),
        ("x.0 == 1)", "not expected"),
        ("(x.0 == 1", "breaks off"),
        ("x.0 = 1", "not in the grammar"),
        ("x.0 == 1.5", "not in the grammar"),
        ("x == 1", "not in the grammar"),
        ("x..0 == 1", "not in the grammar"),
        ("x.0 ** 2 == 4", "not expected"),
        ("__import__('os').system('true') == 0", "not in the grammar"),
        ("min(x.0) == 1", "one operand"),
        ("abs(x.0) == 1", "not in the grammar"),
        ("x.0 // 0 == 1", "divides by zero"),
        ("x.0 % 0 == 1", "divides by zero"),
        ("x.0 == 9223372036854775808", "63 bits"),
        ("x.0 == " + "9" * 1000, "63 bits"),
        ("x.0 == 1" + " " * LENGTH_LIMIT, "longer than"),
        ("(" * 500 + "x.0" + ")" * 500 + " == 1", "deeper than"),
        ("not " * 400 + "x.0 == 1", "deeper than"),
        ("- " * 500 + "x.0 == 1", "deeper than"),
        ("x.0 - " * DEPTH_LIMIT + "x.0 == 0", "deeper than"),
        ("x.1000 == 1", "not a dimension"),
        ('"\\u12".0 == 1', "not a JSON string"),
    ],
)
def test_what_is_no_guard(text: str, why: str) -> None:
    with pytest.raises(GuardError, match=why):
        parse_rule(text)


def test_names_of_inputs() -> None:
    for name in ("x", "images.0", "state.key", "min", "a b", 'quo"te', "und.", "größe"):
        rule = Operation("==", (Size(name, 2), Number(1)))
        assert parse_rule(str(rule)) == rule
    assert str(Size("images.0", 2)) == "images.0.2"
    assert str(Size("a b", 2)) == '"a b".2'
