"""The graph's text (``models/model.json``) with and without its engines.

The *skeleton* is the text in which a short token replaces each engine's base64. torch reads and writes only the
skeleton; the engines are always streamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from toolchain.errors import BuildFailedError, MalformedArtifactError
from toolchain.io.base64_stream import encoded_length


def engine_token(index: int) -> str:
    """Returns the token of an engine, by its index in the order of the graph, from 0."""
    return f"trtcross-engine-{index}"


@dataclass(frozen=True)
class GraphLayout:
    """Where each engine's base64 is in the full text.

    Attributes:
        pieces: the skeleton's bytes between the tokens, one piece more than there are engines.
        offsets: where each engine's base64 begins, in bytes from the start of the text.
        size: the size of the full text, in bytes.
    """

    pieces: tuple[bytes, ...]
    offsets: tuple[int, ...]
    size: int


def lay_out(skeleton: bytes, sizes: Sequence[int]) -> GraphLayout:
    """Places engines of the given raw sizes at their tokens.

    Raises:
        BuildFailedError: a token is missing, out of order, or in the text twice.
    """
    pieces, offsets, position, start = [], [], 0, 0
    for index, size in enumerate(sizes):
        quoted = f'"{engine_token(index)}"'.encode()
        at = skeleton.find(quoted, start)
        if at < 0 or skeleton.count(quoted) != 1:
            raise BuildFailedError(
                f"the text {engine_token(index)!r} must stand in the graph exactly once",
                where="models/model.json",
                remedy="rename whatever in the model has that name",
            )
        piece = skeleton[start : at + 1]
        pieces.append(piece)
        position += len(piece)
        offsets.append(position)
        position += encoded_length(size)
        start = at + len(quoted) - 1
    pieces.append(skeleton[start:])
    return GraphLayout(tuple(pieces), tuple(offsets), position + len(pieces[-1]))


def interleave(pieces: Sequence[bytes], engines: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yields the full text in chunks: each piece, and after it the base64 of the next engine."""
    yield pieces[0]
    for piece, engine in zip(pieces[1:], engines, strict=True):
        yield from engine
        yield piece


def gaps(spans: Sequence[tuple[int, int]], size: int, *, where: str) -> list[tuple[int, int]]:
    """Returns ``(offset, length)`` of each range between spans.

    Args:
        spans: ``(offset, length)`` of each engine's base64, in order.
        size: the size of the text.
        where: the file and entry, for errors.

    Raises:
        MalformedArtifactError: a span overlaps the one before it, or is outside the text.
    """
    result, position = [], 0
    for offset, length in spans:
        if offset < position or offset + length > size:
            raise MalformedArtifactError(
                f"an engine is placed at {offset} with {length} characters, which overlaps another or is outside the "
                "graph",
                where=where,
            )
        result.append((position, offset - position))
        position = offset + length
    result.append((position, size - position))
    return result
