"""Frozen records with strictly checked fields, of which a manifest consists.

They are not pydantic models: importing pydantic takes a hundred times as long as reading a record, and every program
that opens an artifact would wait for it. ``schema.py`` makes pydantic models of the same classes for the JSON Schema; a
test compares both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from inspect import get_annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

from toolchain.manifest.checks import Bounds, Check, FieldError, check_of

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Stands in for the decorator of ``typing``, which exists from Python 3.11 on."""
        return lambda decorated: decorated


REQUIRED: Any = object()
"""Marks a field without a default."""


class FieldSpec:
    """A field's declaration beside its type: default, description and bounds."""

    def __init__(self, default: Any, description: str | None, bounds: Bounds) -> None:
        self.default = default
        self.description = description
        self.bounds = bounds


def field(
    *,
    default: Any = REQUIRED,
    description: str | None = None,
    ge: float | None = None,
    pattern: str | None = None,
    max_length: int | None = None,
) -> Any:
    """Declares a field: its default, its description in the JSON Schema, and its :class:`Bounds`."""
    return FieldSpec(default, description, Bounds(ge=ge, pattern=pattern, max_length=max_length))


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True, field_specifiers=(field,))
class Record:
    """Base class of records, strict and frozen: unknown fields are refused, and no string is read as a number.

    Raises:
        FieldError: from the constructor, about the first field that is wrong.
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

    def __init__(self, /, **values: Any) -> None:
        self.__dict__.update(self._checked(values))
        self._check_whole()

    @classmethod
    def model_validate(cls, document: Any) -> Self:
        """Makes a record of a document; a record of this class is returned as it is.

        Raises:
            FieldError: about the first field that is wrong.
        """
        if isinstance(document, cls):
            return document
        if not isinstance(document, dict):
            raise FieldError("it must be an object")
        if not all(isinstance(name, str) for name in document):
            raise FieldError("an object's names must be texts")
        return cls(**cls._fields_of(document))

    @classmethod
    def field_check(cls) -> Check:
        """Returns the check of a field that holds this record."""
        cls._own_checks()  # a wrong type of a field is reported now
        return cls.model_validate

    @classmethod
    def field_specs(cls) -> dict[str, FieldSpec]:
        """Returns the fields by name, in order."""
        return cls._specs

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """Returns a copy with some values replaced; these are not checked."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__ | update)
        return copied

    def model_dump(self) -> dict[str, Any]:
        """Returns the fields as plain JSON."""
        return {name: _plain(value) for name, value in self._written_fields().items()}

    def to_json(self) -> str:
        """Returns the record as indented JSON."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def _fields_of(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of a document that holds the fields."""
        return document

    def _written_fields(self) -> dict[str, Any]:
        """Returns the fields that :meth:`model_dump` writes; a subclass may leave some out or add some."""
        return self.__dict__

    def _check_whole(self) -> None:
        """Checks fields that depend on each other.

        Raises:
            ValueError: they contradict each other.
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
        """Returns the check of each field; they are made once, with those of the records in them."""
        if cls._checks is None:
            hints = get_type_hints(cls, include_extras=True)
            cls._checks = {
                name: check_of(Annotated[hints[name], spec.bounds] if spec.bounds.settings else hints[name])
                for name, spec in cls._specs.items()
            }
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
