"""Selectors of cells by identifier: globs and braces, as in ``resnet{18,50}-*``; several, separated by spaces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from toolchain.errors import UsageError

_BRACES = re.compile(r"\{([^{}]*)\}")
# A handful of braces is a selector, and a hundred thousand patterns are a mistake.
_PATTERN_LIMIT = 1000


def expand_braces(selector: str) -> list[str]:
    """``a{b,c}d`` as ``abd`` and ``acd``; braces may lie in braces.

    Raises:
        UsageError: a brace without its partner, or far too many patterns.
    """
    pending, patterns = [selector], []
    while pending:
        text = pending.pop(0)
        match = _BRACES.search(text)
        if match:
            head, tail = text[: match.start()], text[match.end() :]
            pending += [head + part + tail for part in match[1].split(",")]
        elif "{" in text or "}" in text:
            raise UsageError(
                f"a brace in {selector!r} has no partner", where="selector", remedy="write resnet{18,50}-*"
            )
        else:
            patterns.append(text)
        if len(pending) + len(patterns) > _PATTERN_LIMIT:
            raise UsageError(
                f"{selector[:80]!r} stands for more than {_PATTERN_LIMIT} patterns",
                where="selector",
                remedy="use * instead of braces",
            )
    return list(dict.fromkeys(patterns))


def matches(identifier: str, selector: str) -> bool:
    """Whether any of a selector's patterns is the whole identifier."""
    return any(fnmatchcase(identifier, pattern) for word in selector.split() for pattern in expand_braces(word))


def require_match(selector: str, identifiers: Sequence[str], *, where: str) -> None:
    """Refuses a selector that selects nothing.

    Raises:
        UsageError: it names what there is.
    """
    for word in selector.split() or [""]:
        if not any(matches(identifier, word) for identifier in identifiers):
            raise nothing_selected(f"{word!r} selects no cell", identifiers, where=where, word=word)


def select(identifiers: Sequence[str], only: Iterable[str], skip: Iterable[str]) -> list[str]:
    """The identifiers that one of ``only`` selects (all, where there is none) and none of ``skip``.

    Raises:
        UsageError: a selector of ``only`` selects nothing, or nothing is left.
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
    """The error of an empty selection: it lists what there is, the nearest first."""
    near = difflib.get_close_matches(word, identifiers, 3, 0.5)
    listed = [*near, *(name for name in identifiers if name not in near)]
    return UsageError(problem, where=where, remedy="select from:\n    " + "\n    ".join(listed))
