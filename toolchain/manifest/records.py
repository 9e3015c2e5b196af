"""Frozen records with strictly checked fields: what a manifest is made of.

A record is read in a hundredth of the time that importing pydantic takes, which is what a program pays that opens one
artifact. ``schema.py`` makes pydantic's models of the same classes, for the JSON Schema; a test compares both.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from inspect import get_annotations
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        return lambda decorated: decorated


# Gives the value of a field, or refuses it.
Check = Callable[[Any], Any]
R = TypeVar("R", bound="Record")

REQUIRED: Any = object()
"""The default of a field that has none."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


if TYPE_CHECKING:
    JsonValue = Any
else:

    class JsonValue:
        """The type of a field that holds any JSON."""


class FieldError(ValueError):
    """A field that is wrong.

    Attributes:
        problem: what is wrong with it.
        path: where it is: names of fields and indices.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str | int] = []

    def within(self, *path: str | int) -> FieldError:
        """The same error, seen from outside of a field."""
        self.path[:0] = path
        return self

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.problem}"


class Bounds:
    """What a value must be beyond its type.

    Attributes:
        settings: of ``ge``, ``pattern``, ``min_length``, ``max_length``, ``finite`` and ``rule``, those that are set.
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
        """
        Args:
            pattern: of the whole text.
            rule: raises ValueError.
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


class FieldSpec:
    """What a class says of a field beside its type."""

    def __init__(self, default: Any, description: str | None, bounds: Bounds) -> None:
        self.default = default
        self.description = description
        self.bounds = bounds


def field(*, default: Any = REQUIRED, description: str | None = None, **bounds: Any) -> Any:
    """A field's default, its description in the JSON Schema, and its :class:`Bounds`."""
    return FieldSpec(default, description, Bounds(**bounds))


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True, field_specifiers=(field,))
class Record:
    """Strict and frozen: an unknown field is refused, and a number is never read from a string.

    Raises:
        FieldError: from the constructor, with the first field that is wrong.
    """

    _specs: ClassVar[dict[str, FieldSpec]] = {}
    _checks: ClassVar[dict[str, Check] | None] = None

    def __init_subclass__(cls) -> None:
        own = {}
        for name in get_annotations(cls):
            if not name.startswith("_"):
                given = cls.__dict__.get(name, REQUIRED)
                own[name] = given if isinstance(given, FieldSpec) else FieldSpec(given, None, Bounds())
                if given is not REQUIRED:
                    delattr(cls, name)
        cls._specs = {**cls._specs, **own}
        cls._checks = None

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(self._checked(values))
        self._check_whole()

    @classmethod
    def model_validate(cls, document: Any) -> Self:
        """The record of a document with its fields; a record of the class is itself.

        Raises:
            FieldError: the first field that is wrong.
        """
        if isinstance(document, cls):
            return document
        if not isinstance(document, dict):
            raise FieldError("it must be an object")
        return cls(**cls._fields_of(document)) if all(isinstance(key, str) for key in document) else _refuse_keys()

    @classmethod
    def field_specs(cls) -> dict[str, FieldSpec]:
        """The fields by name, in order."""
        return cls._specs

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """The same with other values, which are not checked."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__ | update)
        return copied

    def model_dump(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {name: _plain(value) for name, value in self._said().items()}

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def _fields_of(cls, document: dict[str, Any]) -> dict[str, Any]:
        """The fields in a document."""
        return document

    def _said(self) -> dict[str, Any]:
        """The fields that a document has."""
        return self.__dict__

    def _check_whole(self) -> None:
        """Compares fields with one another.

        Raises:
            ValueError: they do not go together.
        """

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> dict[str, Any]:
        checks = cls._own_checks()
        found = {}
        for name, check in checks.items():
            if name in values:
                try:
                    found[name] = check(values[name])
                except FieldError as error:
                    raise error.within(name) from error.__cause__
            else:
                default = cls._specs[name].default
                if default is REQUIRED:
                    raise FieldError("it is missing").within(name)
                found[name] = [*default] if isinstance(default, list) else default
        if unknown := values.keys() - checks.keys():
            raise FieldError("there is no such field").within(min(unknown))
        return found

    @classmethod
    def _own_checks(cls) -> dict[str, Check]:
        """What reads each field; made once, with those of the records within."""
        if cls._checks is None:
            hints = get_type_hints(cls, include_extras=True)
            cls._checks = {name: _field_check(hints[name], spec) for name, spec in cls._specs.items()}
        return cls._checks

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def _refuse_keys() -> Any:
    raise FieldError("an object's names must be texts")


def _field_check(hint: Any, spec: FieldSpec) -> Check:
    check = _check_of(hint)
    return _both(check, spec.bounds.check()) if spec.bounds.settings else check


def _both(first: Check, second: Check) -> Check:
    return lambda value: second(first(value))


def _check_of(hint: Any) -> Check:
    """What reads a value of this type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check = _check_of(args[0])
        for bounds in args[1:]:
            check = _both(check, bounds.check())
        return check
    if origin in (Union, UnionType):
        return _union(args)
    if origin is Literal:
        return _literal(args)
    if origin is list:
        return _list(_check_of(args[0]))
    if origin is dict:
        return _dict(_check_of(args[1]))
    if hint in _PLAIN:
        return _PLAIN[hint]
    if issubclass(hint, Record):
        hint._own_checks()
        read: Check = hint.model_validate
        return read
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
    return float(value)


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
        raise FieldError(f"it is no time: {error}") from error


_PLAIN: dict[Any, Check] = {
    str: _text, int: _integer, float: _number, bool: _boolean, NoneType: _none, JsonValue: _json, Any: _json,
    datetime: _time,
}  # fmt: skip


def _union(members: tuple[Any, ...]) -> Check:
    checks = [_check_of(member) for member in members if member is not NoneType]
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
        # The one that came furthest says most.
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


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        text = value.isoformat()
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    return value
