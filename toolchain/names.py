"""Names that nothing else has."""

from __future__ import annotations

from collections.abc import Callable


def unique_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name, or with the first number behind it that makes it one that is not taken: ``x``, ``x_1``, ``x_2``."""
    candidate, count = name, 0
    while is_taken(candidate):
        count += 1
        candidate = f"{name}_{count}"
    return candidate
