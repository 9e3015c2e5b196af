"""``torch.export.save`` without its self-test, and without a file."""

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
    """Writes the same bytes as ``torch.export.save``, faster.

    Before it writes, torch brings a copy of the program into a canonical form and drops it ("test canonical form is
    well defined"). Without weights, that is half of the time of saving.

    Args:
        program: the program.
        path: the file to write, as a path or a binary stream.
    """
    canonicalize = serialize.canonicalize
    serialize.canonicalize = lambda ep, constants=None: ep
    try:
        torch.export.save(program, path)
    finally:
        serialize.canonicalize = canonicalize


class Records(_package.PT2ArchiveWriter):
    """A PyTorch archive writer that keeps only digests, because a file would be as large as the weights.

    Attributes:
        digests: the SHA-256 of each record, by its name.
        graph: the graph's JSON.
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
        """Does nothing: there is no file."""


def records_of(program: ExportedProgram) -> Records:
    """Returns the records that :func:`save` would write."""
    records = Records()

    def writer(_: Any) -> Records:
        return records

    with mock.patch.object(_package, "PT2ArchiveWriter", writer):
        save(program, io.BytesIO())
    return records
