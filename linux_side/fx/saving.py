"""``torch.export.save`` without the test of itself that it makes at each call, and without a file."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import IO, Any
from unittest import mock

import torch
from torch._export.serde import serialize
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package

from toolchain.container.entry_names import GRAPH_ENTRY


def save(program: ExportedProgram, path: Path | IO[bytes]) -> None:
    """Writes a program; the same bytes as ``torch.export.save``.

    Torch copies what it is about to write, brings the copy into a canonical form, and drops it ("test canonical form is
    well defined"): half of the time that saving takes, were there no weights.
    """
    canonicalize = serialize.canonicalize
    serialize.canonicalize = lambda ep, constants=None: ep
    try:
        torch.export.save(program, path)
    finally:
        serialize.canonicalize = canonicalize


class Records(_package.PT2ArchiveWriter):
    """What a saved program would hold: each record's SHA-256, and the graph's text.

    A program's file would be as large as its weights, and be written to be read once.
    """

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.graph = b""

    def has_record(self, name: str) -> bool:
        return name in self.digests

    def count_prefix(self, prefix: str) -> int:
        return sum(name.startswith(prefix) for name in self.digests)

    def write_bytes(self, name: str, data: bytes) -> None:
        self.digests[name] = hashlib.sha256(data).hexdigest()
        if name == GRAPH_ENTRY:
            self.graph = data

    def close(self) -> None:
        """There is nothing to close."""


def records_of(program: ExportedProgram) -> Records:
    """The records that :func:`save` would write."""
    records = Records()

    def writer(_: Any) -> Records:
        return records

    with mock.patch.object(_package, "PT2ArchiveWriter", writer):
        save(program, io.BytesIO())
    return records
