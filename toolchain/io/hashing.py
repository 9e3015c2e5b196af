"""Computes SHA-256 of files and streams, as lower-case hex."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    digest, buffer = hashlib.sha256(), bytearray(2**20)  # hashlib.file_digest exists from Python 3.11 on
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def stream_digest(chunks: Iterable[bytes | memoryview]) -> str:
    """Returns the SHA-256 of the chunks, joined."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
