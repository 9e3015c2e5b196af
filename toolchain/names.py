"""Names made unique by a number."""

from __future__ import annotations

from collections.abc import Callable


def unique_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """Returns the first of ``x``, ``x_1``, ``x_2`` and so on that is not taken."""
    candidate, count = name, 0
    while is_taken(candidate):
        count += 1
        candidate = f"{name}_{count}"
    return candidate
