"""Options models on the command line, in both directions: click options from fields, and words from values."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BeforeValidator

from toolchain.cli.offers import one_of
from toolchain.options import Options, flag_marker, flag_of

F = TypeVar("F", bound=Callable[..., Any])


def field_options(options: type[Options], *names: str) -> Callable[[F], F]:
    """Gives a verb a click option for each of these fields, or for all; its function gets them as arguments.

    Choices, numbers with bounds, flags and lists keep their kind on the command line. A field of any other kind gets
    the text.
    """

    def decorate(function: F) -> F:
        for name in reversed(names or tuple(options.model_fields)):
            function = _option(options, name)(function)
        return function

    return decorate


def words_of(options: Options) -> list[str]:
    """Returns the words of a command line that give these options; fields left to their defaults are omitted."""
    words: list[str] = []
    for name in type(options).model_fields:
        if name in options.model_fields_set:
            words += _words(flag_of(type(options), name), getattr(options, name))
    return words


def _words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        on, _, off = flag.partition("/")
        chosen = on if value else off
        return [chosen] if chosen else []
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [word for item in values for word in (flag, _text(item))]


def _text(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _option(options: type[Options], name: str) -> Callable[[F], F]:
    field, marker = options.model_fields[name], flag_marker(options, name)
    default, kind = field.get_default(call_default_factory=True), _without_none(field.annotation)
    settings: dict[str, Any] = {"help": field.description, "metavar": marker.metavar}
    if kind is bool:
        settings.update(is_flag=True)
    elif get_origin(kind) is list:
        kind, default = get_args(kind)[0], None
        settings.update(multiple=True)
    if default is not None:
        shown = default if isinstance(default, (bool, int, float)) else _text(default)
        settings.update(default=shown, show_default=bool(shown))
    offers = marker.offers or (
        [item.value for item in kind] if isinstance(kind, type) and issubclass(kind, Enum) else ()
    )
    if offers:
        settings.update(shell_complete=one_of(offers))
    return click.option(flag_of(options, name), name, type=_click_type(kind, field.metadata), **settings)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (item for item in get_args(kind) if item is not type(None))
    return kind


def _click_type(kind: Any, metadata: list[Any]) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is bool:
        return None
    if any(isinstance(item, BeforeValidator) for item in metadata):  # it reads the text
        return click.STRING
    if kind in (int, float):
        return _number_type(kind, metadata)
    return click.Path(path_type=Path) if kind is Path else None


def _number_type(kind: type, metadata: list[Any]) -> Any:
    """Returns click's type for a number within the bounds of its field (pydantic's ``ge``, ``gt``, ``le``, ``lt``)."""
    bounds = {
        name: getattr(item, name) for name in ("ge", "gt", "le", "lt") for item in metadata if hasattr(item, name)
    }
    if not bounds:
        return kind
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    ranged: Any = click.IntRange if kind is int else click.FloatRange
    return ranged(low, high, min_open="gt" in bounds, max_open="lt" in bounds)
