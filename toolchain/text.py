"""Texts of others, fit to be shown."""

from __future__ import annotations

import re
import unicodedata

TEXT_LIMIT = 1000


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, cut at ``limit`` characters, with what is invisible or turns the line around written out.

    Line ends and tabs stay. What XML forbids (control characters, surrogates, U+FFFE, U+FFFF) is never in the result.
    """
    if len(text) > limit:
        text = f"{text[:limit]}\u2026 ({len(text) - limit} more characters)"
    return "".join(character if _plain(character) else ascii(character)[1:-1] for character in text)


def _plain(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


_COMMAND = re.compile(r"`([^`\n]+)`|(?:(?<=: )|(?<=^))((?:trtcross|openssl|python -m pip|py) [^\n;]+)")


def with_commands(text: str) -> list[tuple[str, bool]]:
    """A text in pieces, and whether each is a command: what stands in backticks, or is the rest behind a colon."""
    pieces, end = [], 0
    for found in _COMMAND.finditer(text):
        pieces += [(text[end : found.start()], False), (found[1] or found[2], True)]
        end = found.end()
    return [*pieces, (text[end:], False)]


def size_text(size: int) -> str:
    """Bytes as people read them: 44.9 MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
