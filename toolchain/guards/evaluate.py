"""Evaluates guards: they are compiled once into closures, which take a few microseconds a call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from toolchain.guards.bounds import Ranges, bounds
from toolchain.guards.grammar import Expression, GuardError, Number, Operation, Size, parse_rule, sizes_in

_Function = Callable[[Sequence[int]], int]


class Guards:
    """Conditions on the sizes in a call.

    Attributes:
        rules: the conditions.
        sizes: the sizes whose values :meth:`violated` takes, in this order; each size of the rules is among them.
    """

    def __init__(self, rules: Iterable[Operation], sizes: Iterable[Size] = ()) -> None:
        self.rules = tuple(rules)
        self.sizes = tuple(dict.fromkeys([*sizes, *(size for rule in self.rules for size in sizes_in(rule))]))
        places = {size: index for index, size in enumerate(self.sizes)}
        self._functions = [(_compile(rule, places), rule) for rule in self.rules]

    @classmethod
    def parse(cls, texts: Iterable[str], ranges: Ranges) -> Guards:
        """Reads guards and compares them with the ranges of the inputs' sizes.

        Raises:
            GuardError: a guard is not in the grammar, names a size that no input has, divides by zero, or is not true
                of any sizes within the ranges.
        """
        guards = cls(map(parse_rule, texts))
        for rule in guards.rules:
            _check_possible(rule, ranges)
        _check_possible_together(guards, ranges)
        return guards

    def violated(self, values: Sequence[int]) -> Operation | None:
        """Returns the first rule that the values of :attr:`sizes` violate, or None; a division by zero violates."""
        for function, rule in self._functions:
            try:
                if not function(values):
                    return rule
            except ZeroDivisionError:
                return rule
        return None

    def holds(self, sizes: Mapping[Size, int]) -> bool:
        """Whether the sizes of a call satisfy every rule; ``sizes`` may name others too.

        Raises:
            KeyError: ``sizes`` lacks a size of a rule.
        """
        return self.violated([sizes[size] for size in self.sizes]) is None


def _check_possible(rule: Operation, ranges: Ranges) -> None:
    try:
        possible = bounds(rule, ranges)[1]
    except KeyError as error:
        raise GuardError(f"the guard {_short(rule)!r} names {error.args[0]}, which no input has") from None
    except ZeroDivisionError:
        raise GuardError(f"the guard {_short(rule)!r} divides by zero") from None
    if not possible:
        raise GuardError(f"the guard {_short(rule)!r} is not true of any sizes within the ranges")


# Bounds on the work: how many sizes are tried, and how many characters of guards are evaluated.
_SIZES_TRIED, _CHARACTERS_TRIED = 10_000, 1_000_000


def _check_possible_together(guards: Guards, ranges: Ranges) -> None:
    """Refuses rules about a single size that no value of it satisfies, if its values are few enough to try all."""
    alone: dict[Size, list[Operation]] = {}
    for rule in guards.rules:
        if len(found := set(sizes_in(rule))) == 1:
            alone.setdefault(found.pop(), []).append(rule)
    for size, rules in alone.items():
        low, high = ranges[size]
        tried = min(_SIZES_TRIED, _CHARACTERS_TRIED // sum(len(str(rule)) for rule in rules))
        if high is None or high - low >= tried:
            continue
        together = Guards(rules)
        if all(together.violated((value,)) for value in range(low, high + 1)):
            raise GuardError(f"no value of {size} from {low} to {high} satisfies the guards")


def _short(rule: Operation) -> str:
    text = str(rule)
    return text if len(text) <= 80 else text[:77] + "..."


def _compile(expression: Expression, places: Mapping[Size, int]) -> _Function:
    if isinstance(expression, Number):
        value = expression.value
        return lambda _: value
    if isinstance(expression, Size):
        return operator.itemgetter(places[expression])
    functions = [_compile(operand, places) for operand in expression.operands]
    if len(functions) == 1:
        [function] = functions
        return (lambda sizes: not function(sizes)) if expression.operator == "not" else (lambda sizes: -function(sizes))
    combine = _BINARY[expression.operator]
    while len(functions) > 1:  # in pairs, so that a long sum does not nest deep
        pairs = zip(functions[::2], functions[1::2], strict=False)
        functions = [combine(a, b) for a, b in pairs] + functions[len(functions) & ~1 :]
    return functions[0]


# Written out because they run before every call of a model: an operator is faster than a function that calls it.
_BINARY: dict[str, Callable[[_Function, _Function], _Function]] = {
    "+": lambda a, b: lambda sizes: a(sizes) + b(sizes),
    "-": lambda a, b: lambda sizes: a(sizes) - b(sizes),
    "*": lambda a, b: lambda sizes: a(sizes) * b(sizes),
    "//": lambda a, b: lambda sizes: a(sizes) // b(sizes),
    "%": lambda a, b: lambda sizes: a(sizes) % b(sizes),
    "min": lambda a, b: lambda sizes: min(a(sizes), b(sizes)),
    "max": lambda a, b: lambda sizes: max(a(sizes), b(sizes)),
    "==": lambda a, b: lambda sizes: a(sizes) == b(sizes),
    "!=": lambda a, b: lambda sizes: a(sizes) != b(sizes),
    "<": lambda a, b: lambda sizes: a(sizes) < b(sizes),
    "<=": lambda a, b: lambda sizes: a(sizes) <= b(sizes),
    ">": lambda a, b: lambda sizes: a(sizes) > b(sizes),
    ">=": lambda a, b: lambda sizes: a(sizes) >= b(sizes),
    "and": lambda a, b: lambda sizes: a(sizes) and b(sizes),
    "or": lambda a, b: lambda sizes: a(sizes) or b(sizes),
}
