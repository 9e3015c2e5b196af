"""JSON as we accept it from files: no duplicate keys, no NaN, bounded in size, depth and numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from toolchain.errors import MalformedArtifactError

# Deeper than torch's graphs and treespecs ever are, and shallow enough for any reader's recursion.
DEPTH_LIMIT = 100
# Any 64-bit number, signed or not.
_DIGITS = 20


def load_json(data: bytes, *, where: str, size_limit: int, value_limit: int | None = None) -> Any:
    """Parses UTF-8 JSON.

    Args:
        size_limit: how many bytes it may have.
        value_limit: how many values it may hold, which bounds the memory that it takes: a value of two bytes becomes
            an object of a hundred.

    Raises:
        MalformedArtifactError: too long, too deep, not UTF-8, not JSON, a key twice, or a number beyond 64 bits.
    """
    if len(data) > size_limit:
        raise MalformedArtifactError(
            f"the JSON cannot be read: it has {len(data)} bytes, and at most {size_limit} are read", where=where
        )
    # Each value but the first stands behind one of these.
    if value_limit is not None and sum(map(data.count, (b"[", b"{", b","))) > value_limit:
        raise MalformedArtifactError(f"the JSON cannot be read: it holds more than {value_limit} values", where=where)
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise MalformedArtifactError("the JSON cannot be read: it is not UTF-8", where=where) from error
    except RecursionError as error:
        raise MalformedArtifactError("the JSON cannot be read: it is nested too deeply", where=where) from error
    except ValueError as error:
        raise MalformedArtifactError(f"the JSON cannot be read: {error}", where=where) from error
    if _depth_exceeds(document, DEPTH_LIMIT):
        raise MalformedArtifactError("the JSON cannot be read: it is nested too deeply", where=where)
    return document


def _depth_exceeds(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text[:_DIGITS]}... is too big")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_DIGITS]} is too big")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return document


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")
