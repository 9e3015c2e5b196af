"""Encodes and decodes base64 in one pass over a stream, and takes the digest of the raw bytes on the way.

The form is RFC 4648 with the standard alphabet, padding, no line breaks, and canonical (the unused low bits of the last
character are 0). Hashing runs on a second thread: SHA-256 and base64 both release the interpreter's lock.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import pybase64

from toolchain.errors import MalformedArtifactError

# A multiple of 3 bytes and, encoded, of 4 characters, so that no quantum spans two chunks.
RAW_CHUNK = 3 * 2**20
TEXT_CHUNK = RAW_CHUNK // 3 * 4


def encoded_length(size: int) -> int:
    """Returns the number of base64 characters for ``size`` raw bytes."""
    return (size + 2) // 3 * 4


class ParallelHash:
    """SHA-256 on a second thread, at most one chunk behind the caller."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._begun = Lock()
        self._begun.acquire()

    def update(self, chunk: bytes | memoryview) -> None:
        """Adds a chunk, which must not change until the next call."""
        self._wait()
        self._pending = self._pool.submit(self._hash, chunk)
        # The caller goes on only when hashing has begun: a caller that copies a chunk keeps the interpreter's lock, so
        # hashing could not begin before the copy is done.
        self._begun.acquire()

    def _hash(self, chunk: bytes | memoryview) -> None:
        self._begun.release()
        self._digest.update(chunk)

    def hexdigest(self) -> str:
        """Returns the digest and ends the thread; nothing can be added afterwards."""
        self._wait()
        self._pool.shutdown()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


def encode_stream(chunks: Iterable[bytes | memoryview], digest: ParallelHash) -> Iterator[bytes]:
    """Yields base64 of ``chunks``; all but the last must be :data:`RAW_CHUNK` bytes long."""
    for chunk in chunks:
        digest.update(chunk)
        yield pybase64.b64encode(chunk)


def decode_stream(chunks: Iterable[bytes], digest: ParallelHash | None, *, where: str) -> Iterator[bytes]:
    """Yields the raw bytes of ``chunks``; all but the last must be :data:`TEXT_CHUNK` characters long.

    Raises:
        MalformedArtifactError: the text is not base64, has padding in the middle, or is not canonical.
    """
    previous_was_last = False
    for chunk in chunks:
        try:
            raw: bytes = pybase64.b64decode(chunk, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedArtifactError(
                f"the engine's base64 is damaged: it is not base64: {error}", where=where
            ) from error
        if previous_was_last:
            raise MalformedArtifactError("the engine's base64 is damaged: there is padding before its end", where=where)
        previous_was_last = chunk.endswith(b"=")
        if previous_was_last and pybase64.b64encode(raw[-(len(raw) % 3) :]) != chunk[-4:]:
            raise MalformedArtifactError(
                "the engine's base64 is damaged: its last character is not canonical", where=where
            )
        if digest is not None:
            digest.update(raw)
        yield raw
