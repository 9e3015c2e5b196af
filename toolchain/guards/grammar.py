"""The grammar of guards: comparisons of integer expressions of the inputs' sizes, joined by ``and``, ``or``, ``not``.

``x.2 % 8 == 0`` is about the third dimension of the input ``x``. A guard is parsed into the classes below and is never
run as code. Its length, its depth of nesting and its numbers are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

LENGTH_LIMIT = 2000
DEPTH_LIMIT = 24
NUMBER_LIMIT = 2**63

COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
CONNECTIVES = ("and", "or", "not")
FUNCTIONS = ("min", "max")

# How tightly an operator binds its operands.
_PRECEDENCE = {
    "or": 1, "and": 2, "not": 3, **dict.fromkeys(COMPARISONS, 4), "+": 5, "-": 5, "*": 6, "//": 6, "%": 6, "minus": 7,
}  # fmt: skip
_FLAT = ("+", "*", "and", "or")
_ATOM = 8

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[0-9]+(?![A-Za-z0-9_.]))
    | (?P<size>(?:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*|"(?:[^"\\]|\\.)*")\.[0-9]+(?![A-Za-z0-9_.]))
    | (?P<word>(?:and|or|not|min|max)(?![A-Za-z0-9_.]))
    | (?P<sign>==|!=|<=|>=|//|[<>+\-*%(),])
    )""",
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")


class GuardError(ValueError):
    """A text that is not a valid guard; the message says why, as one sentence."""


@dataclass(frozen=True)
class Size:
    """The size of an input in a dimension, written ``NAME.DIMENSION``; a name that is not plain is quoted."""

    input: str
    dim: int

    def __str__(self) -> str:
        name = self.input if _PLAIN_NAME.fullmatch(self.input) else json.dumps(self.input)
        return f"{name}.{self.dim}"


@dataclass(frozen=True)
class Number:
    """A whole number."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Operation:
    """An operator and its operands.

    ``-`` has one operand or two; ``+``, ``*``, ``and``, ``or``, ``min`` and ``max`` have two or more.
    """

    operator: str
    operands: tuple[Expression, ...]

    @property
    def is_rule(self) -> bool:
        """Whether it is true or false, and not a number."""
        return self.operator in COMPARISONS or self.operator in CONNECTIVES

    def __str__(self) -> str:
        return _text(self)


Expression = Size | Number | Operation


def parse_rule(text: str) -> Operation:
    """Parses a guard's text into a rule, which is true or false for the sizes of a call.

    Raises:
        GuardError: the text is too long or nests too deep, a number is too big, or it is not in the grammar.
    """
    if len(text) > LENGTH_LIMIT:
        raise GuardError(f"the guard {text[:40]!r}... is longer than {LENGTH_LIMIT} characters")
    rule = _Parser(text).rule()
    if not isinstance(rule, Operation) or not rule.is_rule:
        raise GuardError(f"the guard {text[:80]!r} is a number, not something that is true or false")
    return rule


def check_expression(expression: Expression, depth: int = DEPTH_LIMIT) -> None:
    """Refuses an expression whose text could not be parsed again.

    Raises:
        GuardError: the expression nests too deep, or a number in it is too big.
    """
    if depth == 0:
        raise GuardError(f"a guard nests deeper than {DEPTH_LIMIT} levels")
    if isinstance(expression, Number) and abs(expression.value) >= NUMBER_LIMIT:
        raise GuardError("a guard has a number of more than 63 bits")
    if isinstance(expression, Operation):
        for operand in expression.operands:
            check_expression(operand, depth - 1)


def sizes_in(expression: Expression) -> Iterator[Size]:
    """Yields the sizes in an expression, in order and with repetitions."""
    if isinstance(expression, Size):
        yield expression
    elif isinstance(expression, Operation):
        for operand in expression.operands:
            yield from sizes_in(operand)


def is_rule(expression: Expression) -> bool:
    """Whether an expression is true or false, and not a number."""
    return isinstance(expression, Operation) and expression.is_rule


def _text(expression: Expression, within: int = 0) -> str:
    if not isinstance(expression, Operation):
        own = 7 if isinstance(expression, Number) and expression.value < 0 else _ATOM
        return f"({expression})" if own < within else str(expression)
    operator, operands = expression.operator, expression.operands
    if operator in FUNCTIONS:
        return f"{operator}({', '.join(map(_text, operands))})"
    own = _PRECEDENCE["minus" if operator == "-" and len(operands) == 1 else operator]
    if len(operands) == 1:
        text = ("not " if operator == "not" else "-") + _text(operands[0], own + (operator == "-"))
    else:
        first = _text(operands[0], own + (operator in COMPARISONS))
        text = f" {operator} ".join([first, *(_text(operand, own + 1) for operand in operands[1:])])
    return f"({text})" if own < within else text


class _Parser:
    """A parser by precedence, which counts each level of nesting before it enters it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def rule(self) -> Expression:
        found = self._binary(1)
        if self._at != len(self._tokens):
            raise self._wrong(f"{self._peek()!r} is not expected")
        check_expression(found)
        return found

    def _binary(self, level: int) -> Expression:
        self._depth += 1
        if self._depth > 8 * DEPTH_LIMIT:
            raise GuardError(f"a guard nests deeper than {DEPTH_LIMIT} levels")
        chain, joined_by = [self._unary() if level > 6 else self._prefixed(level)], ""
        while level <= 6 and (operator := self._peek()) in _PRECEDENCE and _PRECEDENCE[operator] == level:
            if operator == "not" or (level == 4 and joined_by):
                raise self._wrong(f"{operator!r} is not expected")
            self._at += 1
            if operator != joined_by or operator not in _FLAT:
                chain, joined_by = self._opened(operator, self._joined(joined_by, chain)), operator
            chain.append(self._binary(level + 1))
        self._depth -= 1
        return self._joined(joined_by, chain)

    def _opened(self, operator: str, left: Expression) -> list[Expression]:
        if operator in _FLAT and isinstance(left, Operation) and left.operator == operator:
            return list(left.operands)
        return [left]

    def _joined(self, operator: str, chain: list[Expression]) -> Expression:
        return self._checked(operator, tuple(chain)) if operator else chain[0]

    def _prefixed(self, level: int) -> Expression:
        if level == 3 and self._peek() == "not":
            self._at += 1
            return self._checked("not", (self._binary(3),))
        return self._binary(level + 1)

    def _unary(self) -> Expression:
        if self._peek() == "-":
            self._at += 1
            operand = self._binary(7)
            return Number(-operand.value) if isinstance(operand, Number) else self._checked("-", (operand,))
        return self._atom()

    def _atom(self) -> Expression:
        kind, word = self._next()
        if kind == "number":
            return Number(_number(word))
        if kind == "size":
            return _size(word)
        if word in FUNCTIONS:
            self._expect("(")
            operands = [self._binary(1)]
            while self._peek() == ",":
                self._at += 1
                operands.append(self._binary(1))
            self._expect(")")
            if len(operands) < 2:
                raise self._wrong(f"{word} has one operand")
            return self._checked(word, tuple(operands))
        if word == "(":
            inner = self._binary(1)
            self._expect(")")
            return inner
        raise self._wrong(f"{word!r} is not expected")

    def _checked(self, operator: str, operands: tuple[Expression, ...]) -> Operation:
        wants_rules = operator in CONNECTIVES
        if any(is_rule(operand) is not wants_rules for operand in operands):
            raise self._wrong(f"{operator!r} is not for {'numbers' if wants_rules else 'what is true or false'}")
        if operator in ("//", "%") and operands[1] == Number(0):
            raise self._wrong("it divides by zero")
        return Operation(operator, operands)

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise self._wrong("it breaks off")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if self._next()[1] != token:
            raise self._wrong(f"{token!r} is missing")

    def _wrong(self, problem: str) -> GuardError:
        return GuardError(f"the guard {self._text[:80]!r} is not in the grammar: {problem}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match or not match.lastgroup:
            raise GuardError(f"the guard {text[:80]!r} is not in the grammar at {text[position : position + 20]!r}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _number(token: str) -> int:
    if len(token) > 20:
        raise GuardError("a guard has a number of more than 63 bits")
    return int(token)


def _size(token: str) -> Size:
    name, _, dim = token.rpartition(".")
    if name.startswith('"'):
        try:
            name = json.loads(name)
        except ValueError:
            raise GuardError(f"the name {name[:80]} in a guard is not a JSON string") from None
    if len(dim) > 3:
        raise GuardError(f"{token[:80]!r} in a guard is not a dimension")
    return Size(name, int(dim))
