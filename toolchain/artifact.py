"""An artifact, as a caller opens it: its manifest, its engines, its digests. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import Any

from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, ROOT
from toolchain.container.reader import Container
from toolchain.engine.info import EngineInfo
from toolchain.engine.plan_header import HEADER_SIZE, PlanHeader, parse_plan_header
from toolchain.errors import MalformedArtifactError
from toolchain.foreign.derive import derive_manifest
from toolchain.graph.document import (
    GRAPH_LIMIT,
    GRAPH_VALUE_LIMIT,
    PlaceholderNode,
    drop_code,
    parse_graph,
    placeholder_nodes,
)
from toolchain.graph.skeleton import engine_token, gaps
from toolchain.io.base64_stream import TEXT_CHUNK, ParallelHash, decode_stream, encoded_length
from toolchain.manifest.models import SIZE_LIMIT, EngineEntry, Manifest
from toolchain.manifest.reading import parse_manifest


class Engine:
    """One engine of an open artifact, read only when asked for."""

    def __init__(self, artifact: Artifact, index: int, entry: EngineEntry) -> None:
        self._artifact = artifact
        self.index = index
        self.entry = entry
        self.name = entry.name
        self.size = entry.size
        self.sha256 = entry.sha256

    @property
    def token(self) -> str:
        return engine_token(self.index)

    @property
    def info(self) -> EngineInfo:
        """The engine info in the graph, the engine itself left out."""
        return self._artifact.placeholders[self.index].info(f"engine {self.name}")

    def chunks(self) -> Iterator[bytes]:
        """Yields the engine's bytes; after the last one its digest has been checked.

        Raises:
            MalformedArtifactError: the base64 or the digest is wrong.
        """
        where = f"{self._artifact.path}, engine {self.name}"
        container, span = self._artifact.container, self.entry.base64
        start = container.entry(span.entry).offset + span.offset
        digest = ParallelHash()
        yield from decode_stream(container.chunks(start, span.length, TEXT_CHUNK), digest, where=where)
        if digest.hexdigest() != self.sha256:
            raise MalformedArtifactError("the engine's bytes do not match the digest in the manifest", where=where)

    def read(self) -> bytes:
        """The engine's bytes, decoded once and checked; peak memory is the engine and one chunk."""
        # One allocation, which BytesIO owns alone: it is filled in place, and handed out uncopied. Its zeros cost
        # nothing, for the system gives out zeroed pages as they are written to.
        buffer = io.BytesIO(bytes(self.size))
        for chunk in self.chunks():
            buffer.write(chunk)
        return buffer.getvalue()

    def open(self) -> io.BufferedReader:
        """The engine as a stream of bytes; its end is reached only if the digest is right."""
        return io.BufferedReader(_ChunkStream(self.chunks()), TEXT_CHUNK)

    def plan_header(self) -> PlanHeader:
        """The plan's own header, read from the file (its first bytes alone)."""
        container, span = self._artifact.container, self.entry.base64
        start = container.entry(span.entry).offset + span.offset
        length = min(encoded_length(HEADER_SIZE), span.length)
        where = f"{self._artifact.path}, engine {self.name}"
        head = b"".join(decode_stream(container.chunks(start, length), None, where=where))
        return parse_plan_header(head[:HEADER_SIZE], where=where)


class _ChunkStream(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._chunks, b"")
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


class Artifact:
    """An open artifact, for one thread at a time. Close it, or use it in a ``with`` block.

    Attributes:
        manifest_sha256: of the manifest as it was read, which is what a signature is of; empty where foreign.
        foreign: whether it was saved by Torch-TensorRT itself; its manifest is then derived from what is in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.container = Container(path)
        self.path = self.container.path
        try:
            self.manifest_sha256 = ""
            self.foreign = GRAPH_ENTRY in self.container.entries and MANIFEST_ENTRY not in self.container.entries
            self.manifest: Manifest = derive_manifest(self.container) if self.foreign else self._read_manifest()
            if not self.foreign:
                self._check_headers()
                self._check_entries()
            self._check_spans()
        except BaseException:
            self.close()
            raise
        self.engines = tuple(Engine(self, i, entry) for i, entry in enumerate(self.manifest.engines))

    def close(self) -> None:
        self.container.close()

    def __enter__(self) -> Artifact:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def skeleton(self) -> bytes:
        """The graph's text with a token for each engine, its digest checked."""
        entry = self.container.entry(GRAPH_ENTRY)
        spans = [(e.base64.offset, e.base64.length) for e in self.manifest.engines]
        between = gaps(spans, entry.size, where=self._where(GRAPH_ENTRY))
        if sum(length for _, length in between) > GRAPH_LIMIT:
            raise self.container.damaged(f"without its engines its graph is longer than {GRAPH_LIMIT} bytes")
        parts: list[bytes] = []
        for index, (offset, length) in enumerate(between):
            if index:
                parts.append(engine_token(index - 1).encode())
            parts.extend(self.container.chunks(entry.offset + offset, length))
        skeleton = b"".join(parts)
        self.require_digest(GRAPH_ENTRY, hashlib.sha256(skeleton).hexdigest())
        return skeleton

    def graph(self) -> dict[str, Any]:
        """The graph, parsed anew at each call, with a token for each engine.

        A foreign one comes without what nobody needs and torch would run or import: guards, and nodes' metadata.
        """
        document = parse_graph(self.skeleton, where=self._where(GRAPH_ENTRY), value_limit=GRAPH_VALUE_LIMIT)
        if self.foreign:
            drop_code(document)
        return document

    @cached_property
    def placeholders(self) -> list[PlaceholderNode]:
        """The placeholder nodes, each holding the token of its engine.

        Raises:
            MalformedArtifactError: the graph's nodes are not those that the manifest lists.
        """
        found = placeholder_nodes(self.graph(), where=self._where(GRAPH_ENTRY))
        listed = [(e.node, engine_token(i)) for i, e in enumerate(self.manifest.engines)]
        if [(node.name, node.token) for node in found] != listed:
            raise self.container.damaged("the placeholder nodes in the graph are not those that the manifest lists")
        return found

    def read_entry(self, name: str, *, size_limit: int | None = None) -> bytes:
        """An entry other than the graph, its digest checked."""
        data = self.container.read(name, size_limit=size_limit)
        self.require_digest(name, hashlib.sha256(data).hexdigest())
        return data

    def check_files(self) -> None:
        """Checks the digest of everything but the engines; the graph counts with its tokens."""
        _ = self.skeleton  # reading it checks it
        for name in self.manifest.files:
            if name != GRAPH_ENTRY:
                self.require_digest(name, self.container.sha256(name))

    def check_engines(self) -> None:
        """Decodes every engine once and checks its base64 and its digest, holding one chunk at a time."""
        for engine in self.engines:
            for _ in engine.chunks():
                pass

    def check_integrity(self) -> None:
        """Checks every byte that a digest covers, each once."""
        self.check_files()
        self.check_engines()
        self.container.check_unchanged()

    def _read_manifest(self) -> Manifest:
        if MANIFEST_ENTRY not in self.container.entries:
            raise self.container.damaged("it is not a .pt2 program of torch 2.8 or later")
        data = self.container.read(MANIFEST_ENTRY, size_limit=SIZE_LIMIT)
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()
        if zlib.crc32(data) != self.container.entry(MANIFEST_ENTRY).crc:
            raise self.container.damaged("the manifest's CRC is wrong")
        return parse_manifest(data, where=self._where(MANIFEST_ENTRY))

    def _check_headers(self) -> None:
        if self.container.root != ROOT or self.container.foreign_header:
            place = self.container.foreign_header or "its root folder"
            raise self.container.damaged(f"the zip headers of {place} are not those that trtcross writes")

    def _check_entries(self) -> None:
        sizes = {name: entry.size for name, entry in self.container.entries.items() if name != MANIFEST_ENTRY}
        listed = {name: file.size for name, file in self.manifest.files.items()}
        for name in sizes.keys() ^ listed.keys():
            state = "is not listed in the manifest" if name in sizes else "is missing"
            raise self.container.damaged(f"the entry {name} {state}")
        for name, size in sizes.items():
            if size != listed[name]:
                raise self.container.damaged(f"the entry {name} has {size} bytes, the manifest says {listed[name]}")
        # So that for one manifest, and one signature of it, there is one file.
        if list(self.container.entries) != [*listed, MANIFEST_ENTRY]:
            raise self.container.damaged("its entries do not lie in the manifest's order, the manifest last")

    def _check_spans(self) -> None:
        size = self.container.entry(GRAPH_ENTRY).size
        spans = [e.base64 for e in self.manifest.engines]
        if any(span.entry != GRAPH_ENTRY for span in spans):
            raise self.container.damaged("an engine is said to lie outside the graph")
        gaps([(span.offset, span.length) for span in spans], size, where=self._where(GRAPH_ENTRY))
        for engine in self.manifest.engines:
            if engine.base64.length != encoded_length(engine.size):
                raise self.container.damaged(f"engine {engine.name} is said to have a size that its base64 has not")

    def require_digest(self, name: str, digest: str) -> None:
        """Refuses a digest that is not the manifest's."""
        if digest != self.manifest.files[name].sha256:
            raise MalformedArtifactError(
                "the digest does not match the manifest: the file was damaged or changed",
                where=self._where(name),
            )

    def _where(self, entry: str) -> str:
        return f"{self.path}, entry {entry}"


def open_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Opens an artifact for reading; no engine is read and nothing in the file is run.

    Args:
        path: the ``.pt2`` file.

    Returns:
        An object that is usable with and without ``with``.

    Raises:
        UsageError: there is no such file.
        MalformedArtifactError: it is damaged, malformed, newer than this release, or holds no engines.
    """
    return Artifact(path)
