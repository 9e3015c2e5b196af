"""Checks the values of fields: there is a check for each type that a record's field may have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

# Returns the value of a field, or raises FieldError.
Check = Callable[[Any], Any]

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


if TYPE_CHECKING:
    JsonValue = Any
else:

    class JsonValue:
        """The type of a field that holds any JSON."""


class FieldError(ValueError):
    """The value of a field is wrong.

    Attributes:
        problem: what is wrong with it.
        path: where the field is, as names of fields and indices.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str | int] = []

    def within(self, *path: str | int) -> FieldError:
        """Prepends the names or indices of the surrounding fields to the path, and returns the error itself."""
        self.path[:0] = path
        return self

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.problem}"


class Bounds:
    """Restrictions on a value beyond its type.

    Attributes:
        settings: those of ``ge``, ``pattern``, ``min_length``, ``max_length`` and ``finite`` that are set.
        rule: a further check, which raises ValueError.
    """

    def __init__(
        self,
        *,
        ge: float | None = None,
        pattern: str | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        finite: bool | None = None,
        rule: Callable[[Any], None] | None = None,
    ) -> None:
        """Keeps the bounds that are given; None stands for no bound.

        Args:
            ge: the least value.
            pattern: a regular expression that the whole text must match.
            min_length: the least length of a text or list.
            max_length: the greatest length of a text or list.
            finite: whether NaN and infinities are refused.
            rule: a further check, which raises ValueError.
        """
        given = {"ge": ge, "pattern": pattern, "min_length": min_length, "max_length": max_length, "finite": finite}
        self.settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.rule = rule

    def check(self) -> Check:
        ge, finite, rule = self.settings.get("ge"), self.settings.get("finite"), self.rule
        shortest, longest = self.settings.get("min_length", 0), self.settings.get("max_length", math.inf)
        sized = {"min_length", "max_length"} & self.settings.keys()
        pattern = re.compile(self.settings["pattern"]) if "pattern" in self.settings else None

        def check(value: Any) -> Any:
            if ge is not None and not value >= ge:
                raise FieldError(f"it must be {ge} or more")
            if finite and not math.isfinite(value):
                raise FieldError("it must be finite")
            if sized and not shortest <= len(value) <= longest:
                raise FieldError(f"its length must be from {shortest} to {longest}")
            if pattern is not None and not pattern.fullmatch(value):
                raise FieldError(f"it must match {pattern.pattern}")
            if rule is not None:
                try:
                    rule(value)
                except ValueError as error:
                    raise FieldError(str(error)) from error
            return value

        return check


def _both(first: Check, second: Check) -> Check:
    return lambda value: second(first(value))


def check_of(hint: Any) -> Check:
    """Returns the check of a type; a record's class provides its own by ``field_check``.

    Raises:
        TypeError: no field can have this type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check = check_of(args[0])
        for bounds in args[1:]:
            check = _both(check, bounds.check())
        return check
    if origin in (Union, UnionType):
        return _union(args)
    if origin is Literal:
        return _literal(args)
    if origin is list:
        return _list(check_of(args[0]))
    if origin is dict:
        return _dict(check_of(args[1]))
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hasattr(hint, "field_check"):
        own: Check = hint.field_check()
        return own
    if issubclass(hint, Enum):
        return _enum(hint)
    raise TypeError(f"a record cannot have a field of the type {hint}")


def _text(value: Any) -> str:
    if isinstance(value, Enum) or not isinstance(value, str):
        raise FieldError("it must be a string")
    return value if type(value) is str else str.__str__(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("it must be a whole number")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError("it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise FieldError("it is too large") from error


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError("it must be true or false")
    return value


def _none(value: Any) -> None:
    if value is not None:
        raise FieldError("it must be null")


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(name): _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _text(value)


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise FieldError("it must have a timezone")
        return value
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise FieldError("it must be a date, a time and a timezone, as 2026-11-23T08:30:00Z")
    date, clock, fraction, zone = match.groups()
    try:
        digits = f"{fraction:0<7}" if fraction else ""
        return datetime.fromisoformat(f"{date}T{clock}{digits}{'+00:00' if zone == 'Z' else zone}")
    except ValueError as error:
        raise FieldError(f"it is not a time: {error}") from error


_PLAIN: dict[Any, Check] = {
    str: _text, int: _integer, float: _number, bool: _boolean, NoneType: _none, JsonValue: _json, Any: _json,
    datetime: _time,
}  # fmt: skip


def _union(members: tuple[Any, ...]) -> Check:
    checks = [check_of(member) for member in members if member is not NoneType]
    optional = NoneType in members

    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        problems = []
        for member in checks:
            try:
                return member(value)
            except FieldError as error:
                problems.append(error)
        # The error of the member that got furthest is the most helpful.
        raise max(problems, key=lambda error: len(error.path))

    return check


def _literal(values: tuple[Any, ...]) -> Check:
    def check(value: Any) -> Any:
        if not any(type(value) is type(item) and value == item for item in values):
            raise FieldError(f"it must be {' or '.join(map(repr, values))}")
        return value

    return check


def _enum(kind: type[Enum]) -> Check:
    def check(value: Any) -> Enum:
        if isinstance(value, kind):
            return value
        try:
            return kind(value)
        except ValueError:
            raise FieldError(f"it must be {' or '.join(repr(item.value) for item in kind)}") from None

    return check


def _list(check_item: Check) -> Check:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise FieldError("it must be an array")
        found = []
        for item in value:
            try:
                found.append(check_item(item))
            except FieldError as error:
                raise error.within(len(found)) from error.__cause__
        return found

    return check


def _dict(check_item: Check) -> Check:
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise FieldError("it must be an object")
        found = {}
        for name, item in value.items():
            try:
                found[_text(name)] = check_item(item)
            except FieldError as error:
                raise error.within(str(name)) from error.__cause__
        return found

    return check
