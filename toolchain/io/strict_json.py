"""Parses JSON from files strictly: no duplicate keys, no NaN, and bounds on size, depth and numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from toolchain.errors import MalformedArtifactError
from toolchain.limits import JsonLimit

# Deeper than torch's graphs and treespecs ever are, and shallow enough for any reader's recursion.
DEPTH_LIMIT = 100
# Enough for any 64-bit number, signed or not.
_DIGITS = 20


def load_json(data: bytes, *, where: str, limit: JsonLimit) -> Any:
    """Parses UTF-8 JSON within a limit; everything that readers could understand differently is refused.

    Raises:
        MalformedArtifactError: the text exceeds the limit, nests too deep, is not UTF-8 or not JSON, or has a key twice
            or a number that is too big.
    """
    if problem := limit.excess(data):
        raise MalformedArtifactError(f"the JSON cannot be read: it {problem}", where=where)
    with json_errors(where):
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique_members, **STRICT)
        require_depth(document)
    return document


@contextmanager
def json_errors(where: str) -> Iterator[None]:
    """Turns the exceptions of parsing into one error that names the place.

    Raises:
        MalformedArtifactError: the block met JSON that we do not accept.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise MalformedArtifactError("the JSON cannot be read: it is not UTF-8", where=where) from error
    except RecursionError as error:
        raise MalformedArtifactError("the JSON cannot be read: it is nested too deeply", where=where) from error
    except ValueError as error:
        raise MalformedArtifactError(f"the JSON cannot be read: {error}", where=where) from error


def require_depth(document: Any, limit: int = DEPTH_LIMIT) -> None:
    """Checks that a document is nested no deeper than the limit.

    Raises:
        ValueError: it is nested too deeply.
    """
    level = [document]
    for _ in range(limit):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text[:_DIGITS]}... is too big")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_DIGITS]} is too big")
    return number


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dictionary of an object's members, none of which may be there twice.

    Raises:
        ValueError: a key is there twice.
    """
    document = dict(pairs)
    if len(document) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return document


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


STRICT: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_int": _integer, "parse_float": _float}
"""A decoder's options for numbers: one that readers could understand differently raises ``ValueError``."""
