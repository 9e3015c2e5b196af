"""Guards of torch are translated to our grammar with the same truth value for every size, with floats too."""

from __future__ import annotations

import ast
import itertools
import math

import pytest

from linux_side.guards.reduce import reduced
from linux_side.guards.translate import CannotSayError, translate
from toolchain.guards.bounds import Range
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Expression, Operation, Size, parse_rule

A, B = Size("x", 0), Size("x", 1)
RANGES: dict[Size, Range] = {A: (1, 60), B: (1, 60)}


def resolve(node: ast.expr) -> Expression | None:
    return {"a": A, "b": B}.get(getattr(node, "id", ""))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a % 8 == 0", "x.0 % 8 == 0"),
        ("(8*a) % 32 == 0", "x.0 % 4 == 0"),
        ("(8*a) % 4 == 0", None),
        ("(4*a) != 12", "x.0 != 3"),
        ("(-24) + 8*a >= 2", "4 * x.0 >= 13"),
        ("((-3) + a) == b", "x.0 - 3 == x.1"),
        ("8 < a", "x.0 > 8"),
        ("not (a % 2 == 0)", "x.0 % 2 != 0"),
        ("a == 3 or b > 7 and a*b < 100", "x.0 == 3 or x.1 > 7 and x.0 * x.1 < 100"),
        ("(4*a) != (4*torch.sym_max(1, (-3) + a))", "x.0 != max(1, x.0 - 3)"),
        ("a**2 > 100", "x.0 * x.0 > 100"),
        ("a + (-1)*((1 + a) // 2) >= 0", "x.0 - (x.0 + 1) // 2 >= 0"),
        ("(a / b) > 1.5", "2 * x.0 > 3 * x.1"),
        ("(a / b) == 1.1", "10 * x.0 == 11 * x.1"),
        ("math.trunc(0.5*torch.sym_float(a)) == 4", "x.0 // 2 == 4"),
        ("math.floor(a / 3) == b", "x.0 // 3 == x.1"),
        ("math.ceil(a / 4) == 2", "(x.0 + 3) // 4 == 2"),
        ("math.trunc(1.5*torch.sym_float(a)) > b", "3 * x.0 // 2 > x.1"),
    ],
)
def test_translated_guards_mean_the_same_as_torchs_text(text: str, says: str | None) -> None:
    rule = translate(text, resolve, RANGES)
    assert (str(rule) if isinstance(rule, Operation) else None) == says
    python = text.replace("torch.sym_float", "float").replace("torch.sym_max", "max")
    for a, b in itertools.product(range(1, 61), repeat=2):
        want = eval(python, {"math": math, "a": a, "b": b})
        assert (Guards([rule], [A, B]).holds({A: a, B: b}) if isinstance(rule, Operation) else rule) is want, (a, b)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("math.trunc(0.7*torch.sym_float(a)) == 3", "rounded fractions"),
        ("(a / b) > 0.3333333333333331", "not a simple fraction"),
        ("torch._sym_sqrt(a) > 3", "calls torch._sym_sqrt"),
        ("math.floor(a / (b - 5)) == 2", "zero or negative"),
        ("math.trunc((a - b) / 2) == 2", "not exact"),
        ("a << 2 == 4", "operator"),
        ("a ** b == 4", "operator"),
        ("u0 == 4", "neither a number nor a size"),
        ("a", "not a comparison"),
        ("a ==", "not a Python expression"),
        ("L['self'].x.size()[0] == a", "neither a number nor a size"),
    ],
)
def test_a_guard_without_an_exact_translation_is_refused(text: str, why: str) -> None:
    with pytest.raises(CannotSayError, match=why):
        translate(text, resolve, RANGES)


def test_a_float_that_a_size_could_overflow_is_refused() -> None:
    with pytest.raises(CannotSayError, match="no upper bound"):
        translate("(a / b) > 1.5", resolve, {A: (1, None), B: (1, None)})


@pytest.mark.parametrize(
    ("rules", "within", "left"),
    [
        (["x.0 % 8 == 0"], (2, 24), ["x.0 % 8 == 0"]),
        (["x.0 - (x.0 + 1) // 2 == (x.0 + 1) // 2", "x.0 != 1"], (4, 24), ["x.0 % 2 == 0"]),
        (["8 * x.0 % 32 == 0", "x.0 // 4 != 1", "x.0 % (x.0 // 4) == 0"], (4, 24), ["x.0 % 4 == 0", "x.0 >= 8"]),
        (["x.0 % 2 != 0"], (3, 40), ["x.0 % 2 == 1"]),
        (["x.0 % 3 != 0"], (1, 40), ["x.0 % 3 != 0"]),
        (["x.0 != 7", "x.0 > 1"], (2, 24), ["x.0 != 7"]),
        (["x.0 > 1", "x.0 * x.1 > 1", "x.0 > 1"], (2, 24), []),
        (["x.0 == 6", "x.0 > 2"], (2, 16), ["x.0 == 6"]),
        (["x.0 > 8"], (2, 16), ["x.0 >= 9"]),
        (["x.0 % 8 == 0", "(x.0 + 7) // 8 * 8 == x.0 * (x.1 // x.1)"], (8, 24), ["x.0 % 8 == 0"]),
        (["x.0 * x.1 < 300"], (2, 24), ["x.0 * x.1 < 300"]),
        (["x.0 % 8 == 0"], (8, None), ["x.0 % 8 == 0"]),
        (["x.0 % 3 == 0 or x.0 % 5 == 0"], (2, 40), ["x.0 % 3 == 0 or x.0 % 5 == 0"]),
    ],
)
def test_rules_become_few_and_plain(rules: list[str], within: Range, left: list[str]) -> None:
    assert [str(rule) for rule in reduced(list(map(parse_rule, rules)), {A: within, B: (2, 24)})] == left
