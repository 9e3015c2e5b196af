"""An artifact, as a caller opens it: its manifest, its engines, its digests. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, ROOT
from toolchain.container.reader import Container
from toolchain.engine.info import EngineInfo
from toolchain.engine.plan_header import HEADER_SIZE, PlanHeader, parse_plan_header
from toolchain.errors import MalformedArtifactError, UsageError
from toolchain.graph.document import parse_graph
from toolchain.graph.facts import GraphFacts, PlacedNode, read_facts
from toolchain.graph.skeleton import engine_token, gaps
from toolchain.io.base64_stream import TEXT_CHUNK, ParallelHash, decode_stream, encoded_length
from toolchain.limits import GRAPH, MANIFEST
from toolchain.manifest.models import EngineEntry, Manifest
from toolchain.manifest.reading import parse_manifest

if TYPE_CHECKING:
    from toolchain.foreign.derive import Derived


class Engine:
    """One engine of an open artifact. Its bytes are read only on request.

    Attributes:
        index: its index in the order of the graph.
        entry: its record in the manifest.
        name: its name.
        size: the size of its bytes.
        sha256: the digest of its bytes, in lower-case hex.
    """

    def __init__(self, artifact: Artifact, index: int, entry: EngineEntry) -> None:
        self._artifact = artifact
        self.index = index
        self.entry = entry
        self.name = entry.name
        self.size = entry.size
        self.sha256 = entry.sha256
        self._plan_header: PlanHeader | None = None

    @property
    def token(self) -> str:
        """The text that stands in the engine's place in :attr:`Artifact.graph_text`."""
        return engine_token(self.index)

    @property
    def info(self) -> EngineInfo:
        """The engine info in the graph, without the engine itself."""
        return self._artifact.placeholders[self.index].info(f"engine {self.name}")

    def chunks(self) -> Iterator[bytes]:
        """Yields the engine's bytes and checks their digest after the last chunk.

        Raises:
            MalformedArtifactError: the base64 or the digest is wrong.
        """
        container, span = self._artifact.container, self.entry.base64
        start = container.entry(span.entry).offset + span.offset
        digest = ParallelHash()
        yield from decode_stream(container.chunks(start, span.length, TEXT_CHUNK), digest, where=self._where)
        if digest.hexdigest() != self.sha256:
            raise MalformedArtifactError(
                "the engine's bytes do not match the digest in the manifest", where=self._where
            )

    def read(self) -> bytes:
        """Returns the engine's bytes, decoded once and checked; peak memory is the engine and one chunk.

        Raises:
            MalformedArtifactError: the base64 or the digest is wrong.
        """
        # BytesIO alone owns this allocation: it fills it in place and returns it without a copy. The zeros cost
        # nothing, because the system provides zeroed pages only as they are written to.
        buffer = io.BytesIO(bytes(self.size))
        for chunk in self.chunks():
            buffer.write(chunk)
        return buffer.getvalue()

    def open(self) -> io.BufferedReader:
        """Returns the engine as a stream of bytes; its end is reached only if the digest is right."""
        return io.BufferedReader(_ChunkStream(self.chunks()), TEXT_CHUNK)

    def header(self) -> bytes:
        """Returns the plan's first :data:`.HEADER_SIZE` bytes, without the rest of the engine and its digest."""
        container, span = self._artifact.container, self.entry.base64
        start = container.entry(span.entry).offset + span.offset
        length = min(encoded_length(HEADER_SIZE), span.length)
        chunks = decode_stream(container.chunks(start, length), None, where=self._where)
        return b"".join(chunks)[:HEADER_SIZE]

    def plan_header(self) -> PlanHeader:
        """Returns what the plan's own header states; it is read once."""
        if self._plan_header is None:
            self._plan_header = parse_plan_header(self.header(), where=self._where)
        return self._plan_header

    @property
    def _where(self) -> str:
        return f"{self._artifact.path}, engine {self.name}"


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
    """An open artifact. Several threads may read it at once. Close it, or use it in a ``with`` block.

    Opening it reads the archive's directory and the manifest. A foreign artifact has no manifest: it is read whole on
    the first use of :attr:`manifest`, which is part of :func:`open_artifact`.

    Attributes:
        manifest_sha256: the digest of the manifest as it was read, which a signature covers; empty for a foreign one.
        foreign: whether Torch-TensorRT itself saved it; its manifest is then derived from its contents.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        """Opens an artifact and reads its directory.

        Args:
            source: the file's path, or all its bytes.
        """
        self.container = Container(source)
        self.path = self.container.path
        self.manifest_sha256 = ""
        self.foreign = GRAPH_ENTRY in self.container.entries and MANIFEST_ENTRY not in self.container.entries
        if not self.foreign:
            try:
                _ = self.manifest
            except BaseException:
                self.close()
                raise

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, compared with the archive's directory.

        Raises:
            MalformedArtifactError: the artifact is damaged, malformed, newer than this release, or holds no engines.
        """
        if self.foreign:
            manifest = self._derived.manifest
        else:
            manifest = self._read_manifest()
            self._check_headers()
            self._check_entries(manifest)
        self._check_spans(manifest)
        return manifest

    @cached_property
    def engines(self) -> tuple[Engine, ...]:
        """The engines, in the order of the graph."""
        return tuple(Engine(self, i, entry) for i, entry in enumerate(self.manifest.engines))

    @cached_property
    def _derived(self) -> Derived:
        from toolchain.foreign.derive import derive  # few files are foreign, and the import takes time

        return derive(self.container)

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
        """The graph's text with a token in each engine's place; its digest is checked."""
        entry = self.container.entry(GRAPH_ENTRY)
        spans = [(e.base64.offset, e.base64.length) for e in self.manifest.engines]
        between = gaps(spans, entry.size, where=self._where(GRAPH_ENTRY))
        length = sum(length for _, length in between)
        if length > GRAPH.size:
            raise self.container.damaged(f"without its engines its graph is longer than {GRAPH.size} bytes")
        parts: list[bytes] = []
        for index, (offset, length) in enumerate(between):
            if index:
                parts.append(engine_token(index - 1).encode())
            parts.extend(self.container.chunks(entry.offset + offset, length))
        skeleton = b"".join(parts)
        self.require_digest(GRAPH_ENTRY, hashlib.sha256(skeleton).hexdigest())
        return skeleton

    @property
    def graph_text(self) -> bytes:
        """The graph's text as it is loaded, with a token in each engine's place.

        A foreign graph comes without guards and nodes' metadata: torch would run or import them,
        and nothing needs them.
        """
        return self._derived.graph if self.foreign else self.skeleton

    def graph(self) -> dict[str, Any]:
        """Returns the graph as a document, parsed anew at each call, so that the caller may change it."""
        return parse_graph(self.graph_text, where=self._where(GRAPH_ENTRY), limit=GRAPH)

    @cached_property
    def graph_facts(self) -> GraphFacts:
        """The facts that are checked before the graph is trusted; they are read once.

        Raises:
            MalformedArtifactError: the text is no graph, or its placeholder nodes are not those of the manifest.
        """
        facts = read_facts(self.graph_text, where=self._where(GRAPH_ENTRY))
        listed = [(e.node, engine_token(i)) for i, e in enumerate(self.manifest.engines)]
        if [(node.name, node.token) for node in facts.placeholders] != listed:
            raise self.container.damaged("the placeholder nodes in the graph are not those that the manifest lists")
        return facts

    @property
    def placeholders(self) -> list[PlacedNode]:
        """The placeholder nodes, each with the token of its engine and its position in the graph's text."""
        return self.graph_facts.placeholders

    def read_entry(self, name: str, *, size_limit: int | None = None) -> bytes:
        """Returns the bytes of an entry other than the graph; their digest is checked.

        Args:
            name: the entry's name below the archive's root folder.
            size_limit: the largest entry that is read, in bytes.

        Raises:
            MalformedArtifactError: there is no such entry, it is larger, or its digest is wrong.
        """
        data = self.container.read(name, size_limit=size_limit)
        self.require_digest(name, hashlib.sha256(data).hexdigest())
        return data

    def check_files(self) -> None:
        """Checks the digest of every entry; the graph's is of its text with tokens in the engines' places."""
        _ = self.skeleton  # reading it checks it
        for name in self.manifest.files:
            if name != GRAPH_ENTRY:
                self.require_digest(name, self.container.sha256(name))

    def check_engines(self) -> None:
        """Decodes every engine once and checks its base64 and its digest; one chunk is in memory at a time."""
        for engine in self.engines:
            for _ in engine.chunks():
                pass

    def check_integrity(self) -> None:
        """Checks every byte that a digest covers, each once.

        Raises:
            MalformedArtifactError: a digest or an engine's base64 is wrong, or the file changed meanwhile.
        """
        self.check_files()
        self.check_engines()
        self.container.check_unchanged()

    def _read_manifest(self) -> Manifest:
        if MANIFEST_ENTRY not in self.container.entries:
            raise self.container.damaged("it is not a .pt2 program of torch 2.8 or later")
        data = self.container.read(MANIFEST_ENTRY, size_limit=MANIFEST.size)
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()
        if zlib.crc32(data) != self.container.entry(MANIFEST_ENTRY).crc:
            raise self.container.damaged("the manifest's CRC is wrong")
        return parse_manifest(data, where=self._where(MANIFEST_ENTRY))

    def _check_headers(self) -> None:
        if self.container.root != ROOT or self.container.foreign_header:
            place = self.container.foreign_header or "its root folder"
            raise self.container.damaged(f"the zip headers of {place} are not those that trtcross writes")

    def _check_entries(self, manifest: Manifest) -> None:
        sizes = {name: entry.size for name, entry in self.container.entries.items() if name != MANIFEST_ENTRY}
        listed = {name: file.size for name, file in manifest.files.items()}
        for name in sizes.keys() ^ listed.keys():
            state = "is not listed in the manifest" if name in sizes else "is missing"
            raise self.container.damaged(f"the entry {name} {state}")
        for name, size in sizes.items():
            if size != listed[name]:
                raise self.container.damaged(
                    f"the entry {name} has {size} bytes, and the manifest states {listed[name]}"
                )
        # The order is fixed, so that one manifest (and one signature of it) belongs to exactly one file.
        if list(self.container.entries) != [*listed, MANIFEST_ENTRY]:
            raise self.container.damaged("its entries are not in the manifest's order, with the manifest last")

    def _check_spans(self, manifest: Manifest) -> None:
        size = self.container.entry(GRAPH_ENTRY).size
        spans = [e.base64 for e in manifest.engines]
        if any(span.entry != GRAPH_ENTRY for span in spans):
            raise self.container.damaged("the manifest places an engine outside the graph")
        gaps([(span.offset, span.length) for span in spans], size, where=self._where(GRAPH_ENTRY))
        for engine in manifest.engines:
            if engine.base64.length != encoded_length(engine.size):
                raise self.container.damaged(
                    f"the size of engine {engine.name} in the manifest does not fit its base64"
                )

    def require_digest(self, name: str, digest: str) -> None:
        """Refuses an entry's digest that is not the one in the manifest.

        Raises:
            MalformedArtifactError: the two differ.
        """
        if digest != self.manifest.files[name].sha256:
            raise MalformedArtifactError(
                "the digest does not match the manifest: the file was damaged or changed",
                where=self._where(name),
            )

    def _where(self, entry: str) -> str:
        return f"{self.path}, entry {entry}"


def open_artifact(source: str | os.PathLike[str] | bytes | IO[bytes]) -> Artifact:
    """Opens an artifact for reading; no engine is read and nothing in the file is run.

    Args:
        source: the path of the ``.pt2`` file; or its bytes or a file object, for a program that decrypts artifacts
            itself. A file object is read into memory to its end.

    Returns:
        An object that works with and without ``with``.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        MalformedArtifactError: it is damaged, malformed, newer than this release, or holds no engines.
    """
    path_or_bytes = source if isinstance(source, (str, bytes, os.PathLike)) else _read_whole(source)
    try:
        artifact = Artifact(path_or_bytes)
        try:
            _ = artifact.manifest
        except BaseException:
            artifact.close()
            raise
    except MalformedArtifactError as error:
        from toolchain.container.file_kind import file_kind

        if not isinstance(path_or_bytes, bytes) and (kind := file_kind(path_or_bytes)):
            raise MalformedArtifactError(
                f"this is {kind.what}, not an artifact",
                where=os.fspath(path_or_bytes),
                remedy=kind.open_instead,
            ) from error
        raise
    return artifact


def _read_whole(file: IO[bytes]) -> bytes:
    """Reads a file object to its end.

    Raises:
        UsageError: the object is no binary file, or reading fails.
    """
    try:
        data = file.read()
    except (AttributeError, OSError, ValueError) as error:
        raise UsageError(
            f"the artifact cannot be read: {error}",
            where="artifact",
            remedy="pass a path, bytes, or an open binary file",
        ) from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UsageError(
            f"the artifact's file gave {type(data).__name__} instead of bytes",
            where="artifact",
            remedy="open it as 'rb'",
        )
    return bytes(data)
