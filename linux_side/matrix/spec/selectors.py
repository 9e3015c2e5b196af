"""Selects cells by identifier with globs and braces, as in ``resnet{18,50}-*``; spaces separate several patterns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import bracex

from toolchain.errors import UsageError

# A selector that expands to more patterns is taken for a mistake.
_PATTERN_LIMIT = 1000


def expand_braces(selector: str) -> list[str]:
    """Expands braces as a shell does: ``a{b,c}d`` gives ``abd`` and ``acd``. Braces may be nested.

    Unlike in a shell, braces around a single word are removed.

    Raises:
        UsageError: a brace has no partner, or there are more than ``_PATTERN_LIMIT`` patterns.
    """
    if not _is_balanced(selector):
        raise UsageError(
            f"a brace in {selector[:80]!r} has no partner", where="selector", remedy="write resnet{18,50}-*"
        )
    try:
        patterns = bracex.expand(selector, keep_escapes=True, limit=_PATTERN_LIMIT)
    except (bracex.ExpansionLimitException, RecursionError) as error:
        raise UsageError(
            f"{selector[:80]!r} stands for more than {_PATTERN_LIMIT} patterns",
            where="selector",
            remedy="use * instead of braces",
        ) from error
    # As a shell does, bracex keeps braces around a single word.
    return list(dict.fromkeys(pattern.replace("{", "").replace("}", "") for pattern in patterns))


def _is_balanced(selector: str) -> bool:
    depth = 0
    for character in selector:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def matches(identifier: str, selector: str) -> bool:
    """Returns whether any of a selector's patterns matches the whole identifier."""
    return any(fnmatchcase(identifier, pattern) for word in selector.split() for pattern in expand_braces(word))


def require_match(selector: str, identifiers: Sequence[str], *, where: str) -> None:
    """Requires that every pattern of a selector matches an identifier.

    Args:
        selector: the selector.
        identifiers: the identifiers of all cells.
        where: the option or key with the selector, for the error.

    Raises:
        UsageError: a pattern matches nothing. The message lists the identifiers.
    """
    for word in selector.split() or [""]:
        if not any(matches(identifier, word) for identifier in identifiers):
            raise nothing_selected(f"{word!r} selects no cell", identifiers, where=where, word=word)


def select(identifiers: Sequence[str], only: Iterable[str], skip: Iterable[str]) -> list[str]:
    """Returns the identifiers that a selector in ``only`` matches and none in ``skip``; an empty ``only`` matches all.

    Raises:
        UsageError: a selector in ``only`` matches nothing, or nothing is left.
    """
    only, skip = list(only), list(skip)
    for selector in only:
        require_match(selector, identifiers, where="--only")
    chosen = [name for name in identifiers if not only or any(matches(name, selector) for selector in only)]
    left = [name for name in chosen if not any(matches(name, selector) for selector in skip)]
    if not left:
        raise nothing_selected("--only and --skip leave no cell", identifiers, where="--skip")
    return left


def nothing_selected(problem: str, identifiers: Sequence[str], *, where: str, word: str = "") -> UsageError:
    """Returns the error of an empty selection, which lists the identifiers, the most similar first."""
    near = difflib.get_close_matches(word, identifiers, 3, 0.5)
    listed = [*near, *(name for name in identifiers if name not in near)]
    return UsageError(problem, where=where, remedy="select from:\n    " + "\n    ".join(listed))
