"""Finding engines in a graph's text that no manifest describes, in one pass and bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from toolchain.errors import MalformedArtifactError
from toolchain.graph.skeleton import engine_token
from toolchain.io.base64_stream import encoded_length
from toolchain.limits import FOREIGN_ENGINES, FOREIGN_GRAPH

# The quotation mark before a text that begins as the base64 of a plan's magic does. Within a text of JSON a quotation
# mark is escaped, so one that is not, with letters behind it, begins a text.
_MARK = re.compile(rb'(?<!\\)"(?=(?:dn|Zn)Ryd)')
_MARK_LENGTH = 6


@dataclass
class Found:
    """What a graph's text holds.

    Attributes:
        skeleton: the text with a token for each engine.
        spans: ``(offset, length)`` of each engine's base64.
    """

    skeleton: bytes
    spans: list[tuple[int, int]]


def find_engines(chunks: Iterable[bytes], *, where: str, limit: int = FOREIGN_GRAPH.size) -> Found:
    """Reads a graph's text from its chunks.

    Args:
        limit: how long the text may be without its engines.

    Raises:
        MalformedArtifactError: it is longer, or ends in an engine.
    """
    skeleton, spans = bytearray(), list[tuple[int, int]]()
    left, origin, begin = b"", 0, -1  # what is not settled yet, where it is, and where the engine in it began
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
                settled = max(len(text) - _MARK_LENGTH, at)  # what a mark may begin in, and the character before
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
    """The size of an engine whose base64 is ``length`` characters long and ends with ``tail``."""
    size = length // 4 * 3 - tail[-2:].count(b"=")
    return size if encoded_length(size) == length else 0
