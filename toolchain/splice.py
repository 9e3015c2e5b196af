"""A read-only file made of pieces: bytes in memory and ranges of another file, none of them copied.

With it torch reads a program whose graph we changed, while the weights come straight from the artifact.
"""

from __future__ import annotations

import bisect
import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain.container import ROOT, Entry

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_MAX32 = 0xFFFFFFFF
_VERSION = 45  # zip64
_DATE = 0x21  # 1980-01-01


@dataclass(frozen=True)
class FileRange:
    """Bytes of a file on disk."""

    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


class SplicedFile(io.RawIOBase):
    """A seekable file over pieces in memory and ranges of ``path``."""

    def __init__(self, path: Path, pieces: Iterable[bytes | FileRange]) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + len(piece))
        self._source = path.open("rb", buffering=0)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._starts[-1]:
            count = self._read_piece(view[done:])
            if not count:
                break
            done += count
            self._position += count
        return done

    def close(self) -> None:
        self._source.close()
        super().close()

    def _read_piece(self, view: memoryview) -> int:
        index = bisect.bisect_right(self._starts, self._position) - 1
        piece, within = self._pieces[index], self._position - self._starts[index]
        count = min(len(view), len(piece) - within)
        if isinstance(piece, FileRange):
            self._source.seek(piece.offset + within)
            return self._source.readinto(view[:count]) or 0
        view[:count] = piece[within : within + count]
        return count


def spliced_archive(path: Path, entries: Sequence[tuple[str, bytes | Entry]]) -> SplicedFile:
    """A zip with the given entries: bytes in memory, or entries of the container at ``path``."""
    pieces: list[bytes | FileRange] = []
    central, position = [], 0
    for name, content in entries:
        full = f"{ROOT}/{name}".encode()
        crc = content.crc if isinstance(content, Entry) else zlib.crc32(content)
        size = content.size if isinstance(content, Entry) else len(content)
        extra = struct.pack("<2H2Q", 1, 16, size, size)
        header = _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, _MAX32, _MAX32, len(full), len(extra))
        extra64 = struct.pack("<2H3Q", 1, 24, size, size, position)
        central.append(
            _CENTRAL.pack(
                b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, crc, _MAX32, _MAX32,
                len(full), len(extra64), 0, 0, 0, 0, _MAX32,
            )
            + full
            + extra64
        )  # fmt: skip
        data = FileRange(content.offset, size) if isinstance(content, Entry) else content
        pieces += [header + full + extra, data]
        position += len(header) + len(full) + len(extra) + size
    directory = b"".join(central)
    count = len(entries)
    end64 = _END64.pack(b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, count, count, len(directory), position)
    locator = _LOCATOR64.pack(b"PK\6\7", 0, position + len(directory), 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _MAX32, _MAX32, 0)
    return SplicedFile(path, [*pieces, directory + end64 + locator + end])
