"""Guards in words for people (``a multiple of 8``), and errors about the sizes of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolchain.guards.bounds import Ranges
from toolchain.guards.grammar import COMPARISONS, Number, Operation, Size, sizes_in

_WORDS = {"==": "{}", "!=": "not {}", "<": "below {}", "<=": "at most {}", ">": "above {}", ">=": "at least {}"}


def wanted(rule: Operation) -> tuple[Size, str] | None:
    """Returns the size that a rule restricts and what it must be, in words; None if the rule has no such form."""
    if rule.operator not in COMPARISONS:
        return None
    left, right = rule.operands
    if isinstance(left, Size) and left not in sizes_in(right):
        return left, _WORDS[rule.operator].format(right)
    if isinstance(left, Operation) and left.operator == "%" and isinstance(right, Number):
        size, modulus = left.operands
        if isinstance(size, Size) and isinstance(modulus, Number) and rule.operator in ("==", "!="):
            return size, ("" if rule.operator == "==" else "not ") + _multiple(modulus.value, right.value)
    return None


def _multiple(modulus: int, remainder: int) -> str:
    return f"a multiple of {modulus}" if remainder == 0 else f"a multiple of {modulus} plus {remainder}"


def complaint(rule: Operation, sizes: Mapping[Size, int]) -> str:
    """Describes why sizes violate a rule: ``x: dimension 2 is 20; it must be a multiple of 8``."""
    spoken_of = dict.fromkeys(sizes_in(rule))
    found = " and ".join(f"{size.input}: dimension {size.dim} is {sizes[size]}" for size in spoken_of)
    if about := wanted(rule):
        size, words = about
        must = f"must not be {words.removeprefix('not ')}" if words.startswith("not ") else f"must be {words}"
        return f"{found}; {'it' if len(spoken_of) == 1 else size} {must}"
    return f"{found}; the model needs {rule}"


def summary(rules: Sequence[Operation], ranges: Ranges) -> list[str]:
    """Returns a line for each size that rules restrict (``x.2: 64 to 1024, a multiple of 8``) and each other rule."""
    about: dict[Size, list[str]] = {}
    others = []
    for rule in rules:
        if found := wanted(rule):
            about.setdefault(found[0], []).append(found[1])
        else:
            others.append(str(rule))
    lines = []
    for size, words in about.items():
        low, high = ranges[size]
        lines.append(f"{size}: {low} to {'any' if high is None else high}, {', '.join(words)}")
    return lines + others
