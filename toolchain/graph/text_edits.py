"""Edits a graph's text without parsing it; the caller has already read it as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

# A device, with its two members in either order. It cannot occur inside a JSON string, whose quotation marks
# are escaped.
_TYPE, _INDEX = r'"type"\s*:\s*"(?:[^"\\]|\\.)*"', r'"index"\s*:\s*(?:null|-?[0-9]+)'
_DEVICE = re.compile(rf"\{{\s*(?:{_TYPE}\s*,\s*{_INDEX}|{_INDEX}\s*,\s*{_TYPE})\s*\}}")


def on_device(text: str, kind: str, index: int | None) -> str:
    """Puts every tensor and every factory operator in the text on one device."""
    device = json.dumps({"type": kind, "index": index})
    return _DEVICE.sub(lambda _: device, text)


def with_texts(text: str, replaced: Iterable[tuple[int, int, str]]) -> str:
    """Replaces ranges of the text, given in order as ``(start, end, replacement)``."""
    parts, position = [], 0
    for start, end, other in replaced:
        parts += [text[position:start], other]
        position = end
    return "".join([*parts, text[position:]])
