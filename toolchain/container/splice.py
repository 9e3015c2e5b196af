"""A read-only file made of pieces: bytes in memory and ranges of a different file, none of them copied.

Through it torch reads a program with a changed graph, and the weights come straight from the artifact.
"""

from __future__ import annotations

import bisect
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.container import zip_records
from toolchain.container.entry_names import ROOT
from toolchain.container.reader import Container, ZipEntry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True)
class FileRange:
    """A range of the bytes of a container's file."""

    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


class SplicedFile(io.RawIOBase):
    """A seekable file over pieces in memory and ranges of an open container's file."""

    def __init__(self, container: Container | None, pieces: Iterable[bytes | FileRange]) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + len(piece))
        self._source = container
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError("a file has nothing before its start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._starts[-1]:
            count = self._read_piece(view[done:])
            if not count:
                break
            done += count
            self._position += count
        return done

    def _read_piece(self, view: memoryview) -> int:
        index = bisect.bisect_right(self._starts, self._position) - 1
        piece, within = self._pieces[index], self._position - self._starts[index]
        count = min(len(view), len(piece) - within)
        if isinstance(piece, FileRange):
            if self._source is None:
                raise ValueError("a range of no file")
            return self._source.read_into(piece.offset + within, view[:count])
        view[:count] = piece[within : within + count]
        return count


def spliced_archive(container: Container | None, entries: Sequence[tuple[str, bytes | ZipEntry]]) -> SplicedFile:
    """Makes a zip of the given entries: bytes in memory, or entries of the container.

    Args:
        container: the container that holds the entries; None if all are in memory.
        entries: the name and the content of each.
    """
    pieces: list[bytes | FileRange] = []
    central, position = b"", 0
    for name, content in entries:
        crc = content.crc if isinstance(content, ZipEntry) else zlib.crc32(content)
        size = content.size if isinstance(content, ZipEntry) else len(content)
        head = (f"{ROOT}/{name}".encode(), crc, size)
        header = zip_records.local_header(*head)
        pieces += [header, FileRange(content.offset, size) if isinstance(content, ZipEntry) else content]
        central += zip_records.central_record(*head, position)
        position += len(header) + size
    end = zip_records.end_records(zip_records.Directory(position, len(central), len(entries)))
    return SplicedFile(container, [*pieces, central + end])
