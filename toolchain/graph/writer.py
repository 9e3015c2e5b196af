"""Writes the graph and its engines into a container as one stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.container.writer import ContainerWriter
from toolchain.graph.skeleton import interleave, lay_out
from toolchain.io.base64_stream import RAW_CHUNK, ParallelHash, encode_stream, encoded_length
from toolchain.manifest.models import FileEntry, Span


@dataclass(frozen=True)
class EngineSource:
    """An engine to write: its size in bytes, and a function that yields its bytes in chunks of any length."""

    size: int
    chunks: Callable[[], Iterable[bytes | memoryview]]


@dataclass(frozen=True)
class WrittenEngine:
    """An engine in a graph's text: its digest, its size in bytes, and where its base64 is."""

    sha256: str
    size: int
    span: Span


@dataclass(frozen=True)
class WrittenGraph:
    """A graph's entry in the archive, and its engines in the graph's order."""

    file: FileEntry
    engines: tuple[WrittenEngine, ...]


def engine_from_buffer(data: bytes | memoryview) -> EngineSource:
    """Makes the source of an engine that is in memory."""
    view = memoryview(data).cast("B")
    return EngineSource(
        len(view), lambda: (view[start : start + RAW_CHUNK] for start in range(0, len(view), RAW_CHUNK))
    )


def engine_from_file(path: Path) -> EngineSource:
    """Makes the source of an engine that is in a file of its own."""

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(RAW_CHUNK):
                yield chunk

    return EngineSource(path.stat().st_size, chunks)


def write_graph(writer: ContainerWriter, skeleton: bytes, engines: Sequence[EngineSource]) -> WrittenGraph:
    """Streams the skeleton with each engine's base64 at its token; no engine is ever whole in memory.

    Raises:
        BuildFailedError: a token is missing or in the text twice.
    """
    layout = lay_out(skeleton, [engine.size for engine in engines])
    digests = [ParallelHash() for _ in engines]
    encoded = (
        encode_stream(_regular(engine.chunks()), digest) for engine, digest in zip(engines, digests, strict=True)
    )
    writer.stream(GRAPH_ENTRY, interleave(layout.pieces, encoded), layout.size)
    return WrittenGraph(
        FileEntry(sha256=hashlib.sha256(skeleton).hexdigest(), size=layout.size),
        tuple(
            WrittenEngine(
                digest.hexdigest(),
                engine.size,
                Span(entry=GRAPH_ENTRY, offset=offset, length=encoded_length(engine.size)),
            )
            for engine, digest, offset in zip(engines, digests, layout.offsets, strict=True)
        ),
    )


def _regular(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yields the same bytes in chunks of :data:`RAW_CHUNK`, the last one shorter; full chunks are not copied."""
    left = b""
    for chunk in chunks:
        if not left and len(chunk) == RAW_CHUNK:
            yield chunk
            continue
        left += bytes(chunk)
        while len(left) >= RAW_CHUNK:
            yield left[:RAW_CHUNK]
            left = left[RAW_CHUNK:]
    if left:
        yield left
