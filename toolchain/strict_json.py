"""JSON as we accept it from files: no duplicate keys, no NaN, bounded in size and depth."""

from __future__ import annotations

import json
from typing import Any

from toolchain.errors import MalformedArtifactError


def load_json(data: bytes, *, where: str, size_limit: int) -> Any:
    """Parses UTF-8 JSON.

    Raises:
        MalformedArtifactError: too long, too deep, not UTF-8, not JSON, a key twice, or NaN or infinity.
    """
    if len(data) > size_limit:
        raise _malformed(f"it has {len(data)} bytes, and at most {size_limit} are read", where)
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _malformed("it is not UTF-8", where) from error
    except RecursionError as error:
        raise _malformed("it is nested too deeply", where) from error
    except ValueError as error:
        raise _malformed(str(error), where) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return document


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _malformed(problem: str, where: str) -> MalformedArtifactError:
    return MalformedArtifactError(
        f"the JSON cannot be read: {problem}", where=where, remedy="get the file again, or build it again"
    )
