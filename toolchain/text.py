"""Text for people: foreign text made printable, commands found in sentences, sizes."""

from __future__ import annotations

import re
import unicodedata

TEXT_LIMIT = 1000


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """Cuts a text at ``limit`` characters and escapes those that are invisible or change the writing direction.

    Line ends and tabs stay. The result never holds a character that XML forbids (control characters, surrogates,
    U+FFFE, U+FFFF).
    """
    if len(text) > limit:
        text = f"{text[:limit]}\u2026 ({len(text) - limit} more characters)"
    return "".join(character if _plain(character) else ascii(character)[1:-1] for character in text)


def _plain(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


_COMMAND = re.compile(r"`([^`\n]+)`|(?:(?<=: )|(?<=^))((?:trtcross|openssl|python -m pip|py) [^\n;]+)")


def with_commands(text: str) -> list[tuple[str, bool]]:
    """Splits a text into pieces, each with whether it is a command.

    A command stands in backticks; or it begins with a known program's name, at the start or after a colon, and goes on
    to a semicolon or the line's end.
    """
    pieces, end = [], 0
    for found in _COMMAND.finditer(text):
        pieces += [(text[end : found.start()], False), (found[1] or found[2], True)]
        end = found.end()
    return [*pieces, (text[end:], False)]


def size_text(size: int) -> str:
    """Formats a number of bytes for people: ``44.9 MiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text that is not blank, or the error's class name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
