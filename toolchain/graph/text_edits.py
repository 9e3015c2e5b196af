"""Changes to a graph's text that need no parsing of it; the text has been read as JSON before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

# A device, its two members in either order. No text of JSON holds it, for within one a quotation mark is escaped.
_TYPE, _INDEX = r'"type"\s*:\s*"(?:[^"\\]|\\.)*"', r'"index"\s*:\s*(?:null|-?[0-9]+)'
_DEVICE = re.compile(rf"\{{\s*(?:{_TYPE}\s*,\s*{_INDEX}|{_INDEX}\s*,\s*{_TYPE})\s*\}}")


def on_device(text: str, kind: str, index: int | None) -> str:
    """The text with every tensor and every factory operator on one device."""
    device = json.dumps({"type": kind, "index": index})
    return _DEVICE.sub(lambda _: device, text)


def with_texts(text: str, replaced: Iterable[tuple[int, int, str]]) -> str:
    """The text with others in the place of some ranges, ``(start, end, other)``, which come in order."""
    parts, position = [], 0
    for start, end, other in replaced:
        parts += [text[position:start], other]
        position = end
    return "".join([*parts, text[position:]])
