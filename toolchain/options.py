"""Options of a verb and of its library function, written once: the fields of a model.

A field's type, default and description are the option's; ``toolchain.cli.fields`` makes the command line of them::

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
    """What only the command line says of a field, in the field's ``Annotated`` type.

    Attributes:
        name: the flag; the field's own name, with hyphens, where it is None.
        metavar: what the help writes for the value.
        offers: values that a shell offers on Tab; others are taken too.
    """

    name: str | None = None
    metavar: str | None = None
    offers: tuple[str, ...] = ()


class Options(StrictModel):
    """Plain data that crosses process boundaries; a list may be given as any iterable, or as its only element.

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
    """Whether a foreign file is taken."""

    trust: Annotated[str | None, Flag(metavar="REASON")] = Field(
        default=None, description="Take a foreign file although torch would run code from it; why is recorded."
    )


def flag_of(options: type[Options], name: str) -> str:
    """How the command line spells a field."""
    marker = flag_marker(options, name)
    return marker.name or "--" + name.replace("_", "-")


def flag_marker(options: type[Options], name: str) -> Flag:
    """What the field says of the command line."""
    return next((item for item in options.model_fields[name].metadata if isinstance(item, Flag)), Flag())


def from_text(parse: Callable[[str], T]) -> Callable[[Any], Any]:
    """A field's validator, from a function that reads a text and raises UsageError."""

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
    """The first mistake, in our words: whoever corrects it is told of the next."""
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
