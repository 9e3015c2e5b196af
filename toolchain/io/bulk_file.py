"""A file written once from its beginning to its end, in blocks, on a second thread.

Where the system lets one, whole blocks go past its page cache: to fill that takes more of the processor than all else
that is done to an engine on its way to the disk, and then it still has to be synced.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

BLOCK = 4 * 2**20


class BulkFile:
    """An existing empty file, opened for writing; at most two blocks of it are in memory.

    Attributes:
        position: how many bytes were written.

    Raises:
        OSError: from any method, also for what was written before.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0
        self._path = path
        self._file = path.open("r+b", buffering=0)
        self._bulk: io.FileIO | None = None
        self._blocks = [mmap.mmap(-1, BLOCK) for _ in range(2)]  # whole pages, as the system needs them
        self._rewrites: list[tuple[int, bytes]] = []
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Appends; the bytes are copied before it returns."""
        view = memoryview(data).cast("B")
        while len(view):
            number, filled = divmod(self.position, BLOCK)
            count = min(len(view), BLOCK - filled)
            self._blocks[number % 2][filled : filled + count] = view[:count]
            self.position += count
            view = view[count:]
            if filled + count == BLOCK:
                self._wait()
                self._pending = self._pool.submit(self._write_block, number)

    def rewrite(self, offset: int, data: bytes) -> None:
        """Puts other bytes of the same length where some were written before; done when the file is finished."""
        self._rewrites.append((offset, data))

    def finish(self) -> None:
        """Writes what is left, makes sure that all of it is on the disk, and closes the file."""
        self._wait()
        number, filled = divmod(self.position, BLOCK)
        _write_all(self._file, number * BLOCK, memoryview(self._blocks[number % 2])[:filled])
        for offset, data in self._rewrites:
            _write_all(self._file, offset, memoryview(data))
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Leaves the file as it is."""
        self._pool.shutdown()
        if self._bulk is not None and self._bulk is not self._file:
            self._bulk.close()
        self._file.close()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write_block(self, number: int) -> None:
        block = memoryview(self._blocks[number % 2])
        if self._bulk is None:
            self._bulk = _open_past_the_cache(self._path) or self._file
        try:
            _write_all(self._bulk, number * BLOCK, block)
        except OSError as error:
            if self._bulk is self._file or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            # Not every file system that opens a file so writes to it so; and none writes a part of a page.
            self._bulk.close()
            self._bulk = self._file
            _write_all(self._file, number * BLOCK, block)


def _open_past_the_cache(path: Path) -> io.FileIO | None:
    flag = getattr(os, "O_DIRECT", 0)
    if flag:
        with contextlib.suppress(OSError):
            return io.FileIO(os.open(path, os.O_WRONLY | flag), "wb")
    return None


def _write_all(file: io.FileIO, offset: int, data: memoryview) -> None:
    file.seek(offset)
    while len(data):
        data = data[file.write(data) :]
