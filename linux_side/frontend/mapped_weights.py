"""Maps a saved program's weights from its file, so that they are read on demand and the system can drop the pages."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.export.pt2_archive import _package

from toolchain.container.reader import Container, ZipEntry
from toolchain.errors import UsageError

LEAST = 2**20  # bytes; smaller entries are read
_ALIGNED = 16  # only entries at a multiple of this offset can be mapped


@contextmanager
def mapped_weights(container: Container) -> Iterator[None]:
    """Makes ``torch.export.load`` map large entries from this file instead of reading them.

    This also holds for an archive that was derived from the file and has the same entries. A later write into a tensor
    changes memory only.

    Args:
        container: the saved program.

    Raises:
        UsageError: an entry does not match its checksum, which torch itself does not check for weights.
    """
    large = [entry for entry in container.entries.values() if entry.size >= LEAST and not entry.offset % _ALIGNED]
    if not large:
        yield
        return
    with container.path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for entry in large:
        _require_whole(memory, entry, container)
    entries = {entry.name: entry for entry in large}

    class Archive:
        """Torch's archive reader, except that it maps the storage of these entries."""

        def __init__(self, archive: Any) -> None:
            self._archive = archive

        def __getattr__(self, name: str) -> Any:
            return getattr(self._archive, name)

        def get_storage_from_record(self, name: str, count: int, dtype: torch.dtype) -> torch.Tensor:
            entry = entries.get(name)
            if entry is None or entry.size != count * dtype.itemsize:
                tensor: torch.Tensor = self._archive.get_storage_from_record(name, count, dtype)
                return tensor
            return torch.frombuffer(memory, dtype=dtype, count=count, offset=entry.offset)

    original = _package.PT2ArchiveReader

    def reader(source: Any) -> Any:
        found: Any = original(source)
        found.archive_file = Archive(found.archive_file)
        return found

    with mock.patch.object(_package, "PT2ArchiveReader", reader):
        yield


def _require_whole(memory: mmap.mmap, entry: ZipEntry, container: Container) -> None:
    with memoryview(memory) as view, view[entry.offset : entry.offset + entry.size] as data:
        whole = zlib.crc32(data) == entry.crc
    if not whole:
        raise UsageError(
            f"the program is damaged: {entry.name} does not match its checksum",
            where=str(container.path),
            remedy="get the file again, or save the program again",
        )
