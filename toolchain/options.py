"""Options that a verb and its library function share, written once as the fields of a pydantic model.

An option has its field's type, default and description. ``toolchain.cli.fields`` makes the command line from them::

    class BuildOptions(Options):
        gpus: Annotated[list[str], Flag("--gpu", metavar="sm_NN")] = Field(default_factory=list, description="...")
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from toolchain.errors import UsageError
from toolchain.strict_model import StrictModel

T = TypeVar("T")


@dataclass(frozen=True)
class Flag:
    """What only the command line needs to know of a field; a part of the field's ``Annotated`` type.

    Attributes:
        name: the flag; None stands for the field's own name, with hyphens.
        metavar: the placeholder for the value in the help.
        offers: values that a shell offers on Tab; other values are accepted too.
    """

    name: str | None = None
    metavar: str | None = None
    offers: tuple[str, ...] = ()


class Options(StrictModel):
    """Base class of options: plain data that crosses process boundaries.

    A list may be given as any iterable, or as its only element.

    Raises:
        UsageError: an option that does not exist, or a wrong value.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(values, dict):
            values = {name: _as_list(value) if _is_list(cls, name) else value for name, value in values.items()}
        try:
            return handler(values)
        except ValidationError as error:
            raise _usage_error(cls, error) from error


class TrustOptions(Options):
    """The reason for which an unsafe foreign file is accepted, if there is one."""

    trust: Annotated[str | None, Flag(metavar="REASON")] = Field(
        default=None, description="Accept a foreign file although torch would run code from it; the reason is recorded."
    )


def flag_of(options: type[Options], name: str) -> str:
    """Returns a field's flag, such as ``--min-block-size``."""
    marker = flag_marker(options, name)
    return marker.name or "--" + name.replace("_", "-")


def flag_marker(options: type[Options], name: str) -> Flag:
    """Returns a field's :class:`Flag`; one of defaults if it has none."""
    return next((item for item in options.model_fields[name].metadata if isinstance(item, Flag)), Flag())


def from_text(parse: Callable[[str], T]) -> Callable[[Any], Any]:
    """Makes a field's validator of a function that parses text and raises UsageError; other values pass unchanged."""

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise ValueError(f"{error.problem}: {error.remedy}") from error

    return validate


def _is_list(options: type[Options], name: str) -> bool:
    return name in options.model_fields and get_origin(options.model_fields[name].annotation) is list


def _as_list(value: Any) -> list[Any]:
    alone = isinstance(value, (str, BaseModel)) or not isinstance(value, Iterable)
    return [value] if alone else list(value)


def _usage_error(options: type[Options], error: ValidationError) -> UsageError:
    """Describes the first mistake in our own words; the next one is reported when this one is corrected."""
    item = error.errors(include_url=False)[0]
    cause = getattr(item.get("ctx", {}).get("error"), "__cause__", None)
    if isinstance(cause, UsageError):
        return cause
    name = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, options.model_fields, 1)
        remedy = f"do you mean {near[0]!r}?" if near else "use one of: " + ", ".join(options.model_fields)
        return UsageError(f"there is no option {name!r}", where=options.__name__, remedy=remedy)
    return UsageError(
        f"{name} cannot be {item['input']!r}",
        where=f"{options.__name__}.{name}",
        remedy=item["msg"].replace("Input should", "it should", 1),
    )
