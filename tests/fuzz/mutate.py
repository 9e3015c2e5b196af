"""Mutates JSON so that it stays JSON and a fuzzer passes the parser: one value is replaced or removed."""

from __future__ import annotations

import json
import random
from typing import Any

STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 5e-324, 0.1),
    *("", "\0", "\x1b[31m", "\ud800", "\uff11", "sm_80", "1.6.1.120", "../x", "x" * 5000, "9" * 400),
    *([], {}, [[]], {"": None}, [None] * 50),
]


def mutate_json(data: bytes, seed: int) -> bytes | None:
    """Returns the document with one change, or None if it is not a JSON object."""
    chance = random.Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places = list(_places(document))
    if not places:
        return None
    owner, key = chance.choice(places)
    other_owner, other_key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            owner[key] = chance.choice(STRANGE)
        case 1:
            owner[key] = other_owner[other_key]
        case 2:
            del owner[key]
        case _:
            _add(owner, key, chance)
    try:
        return json.dumps(document).encode()
    except (ValueError, RecursionError):  # a value was put into itself
        return None


def _add(owner: Any, key: Any, chance: random.Random) -> None:
    if isinstance(owner, list):
        owner.insert(key, owner[key])
    else:
        owner[chance.choice(["x", *owner])] = chance.choice(STRANGE)


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Returns the place of every value except the root, as its container and its key there."""
    found: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        owner = pending.pop()
        keys = owner if isinstance(owner, dict) else range(len(owner)) if isinstance(owner, list) else ()
        for key in keys:
            found.append((owner, key))
            pending.append(owner[key])
    return found
