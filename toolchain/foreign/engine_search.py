"""Finds the engines in a graph's text that no manifest describes, in one pass and bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from toolchain.errors import MalformedArtifactError
from toolchain.graph.skeleton import engine_token
from toolchain.io.base64_stream import encoded_length
from toolchain.limits import FOREIGN_ENGINES, FOREIGN_GRAPH

# The quotation mark before a string that begins with the base64 of a plan's magic. Inside a JSON string a quotation
# mark is escaped; one that is not, and has letters behind it, begins a string.
_MARK = re.compile(rb'(?<!\\)"(?=(?:dn|Zn)Ryd)')
_MARK_LENGTH = 6


@dataclass
class Found:
    """A graph's text, taken apart.

    Attributes:
        skeleton: the text with a token in each engine's place.
        spans: ``(offset, length)`` of each engine's base64.
    """

    skeleton: bytes
    spans: list[tuple[int, int]]


def find_engines(chunks: Iterable[bytes], *, where: str, limit: int = FOREIGN_GRAPH.size) -> Found:
    """Finds the engines in a graph's text.

    Args:
        chunks: the text, in chunks of any length.
        where: the file and entry, for errors.
        limit: the largest length of the text without its engines, in bytes.

    Raises:
        MalformedArtifactError: the text is longer, has too many engines, or ends within an engine.
    """
    skeleton, spans = bytearray(), list[tuple[int, int]]()
    left, origin, begin = b"", 0, -1  # text that is not settled yet, its offset, and where its engine began
    for chunk in chunks:
        text, at = left + chunk, 0
        while at < len(text):
            if begin >= 0:
                end = text.find(b'"', at)
                at = end if end >= 0 else len(text)
                if end >= 0:
                    spans.append((begin, origin + end - begin))
                    begin = -1
            elif mark := _MARK.search(text, max(at, 1)):  # no JSON begins with an engine
                skeleton += text[at : mark.end()] + engine_token(len(spans)).encode()
                at = mark.end()
                begin = origin + at
                if problem := FOREIGN_ENGINES.excess(len(spans)):
                    raise MalformedArtifactError(f"the engines in the graph cannot be found: it {problem}", where=where)
            else:
                settled = max(len(text) - _MARK_LENGTH, at)  # a mark may begin in the rest
                skeleton += text[at:settled]
                at = settled
                break
        left, origin = text[at:], origin + at
        if len(skeleton) > limit:
            raise MalformedArtifactError(
                f"the engines in the graph cannot be found: without its engines its graph is longer than {limit} bytes",
                where=where,
            )
    if begin >= 0:
        raise MalformedArtifactError("the engines in the graph cannot be found: it ends within an engine", where=where)
    skeleton += left
    del left, text, chunk
    return Found(bytes(skeleton), spans)


def raw_size(tail: bytes, length: int) -> int:
    """Returns the size of an engine whose base64 has ``length`` characters and ends with ``tail``; 0 if none has."""
    size = length // 4 * 3 - tail[-2:].count(b"=")
    return size if encoded_length(size) == length else 0
