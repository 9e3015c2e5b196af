"""Reads a file, or bytes in memory, by position, so that any number of threads may read it at once."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock


class PositionedFile:
    """A file that is open for reading, without a position of its own.

    Raises:
        OSError: from any method.
        ValueError: from any method, once the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._moving = Lock()  # on Windows, every read moves the file's position

    def close(self) -> None:
        """Closes the file; no other thread may be reading it."""
        self._file.close()

    def status(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def read(self, offset: int, length: int) -> bytes:
        """Returns ``length`` bytes from ``offset`` on; fewer only at the end of the file."""
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), length, offset)
        else:
            with self._moving:
                self._file.seek(offset)
                data = self._file.read(length) or b""
        # One read may return fewer bytes than requested.
        return data if not data or len(data) == length else data + self.read(offset + len(data), length - len(data))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills the start of ``buffer`` from ``offset`` on, without a copy in between.

        Returns:
            The number of bytes; 0 only at the end of the file.
        """
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._moving:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0


class PositionedBytes:
    """Bytes in memory, with the methods of :class:`PositionedFile`."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def close(self) -> None:
        """Releases the bytes; no other thread may be reading them."""
        self._data.release()

    def read(self, offset: int, length: int) -> bytes:
        """Returns ``length`` bytes from ``offset`` on; fewer only at the end."""
        return bytes(self._data[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills ``buffer`` from ``offset`` on and returns the number of bytes; 0 only at the end."""
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)
