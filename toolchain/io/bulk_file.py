"""A file that is written once from beginning to end, in blocks, on a second thread.

Where O_DIRECT works, whole blocks bypass the page cache: filling it costs more CPU than hashing, encoding and writing
an engine together, and it would still have to be synced.
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
    """An existing empty file, open for writing; at most two blocks of it are in memory.

    Attributes:
        position: how many bytes were written.

    Raises:
        OSError: from any method, also about bytes that an earlier call wrote.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0
        self._path = path
        self._file = path.open("r+b", buffering=0)
        self._bulk: io.FileIO | None = None
        self._blocks = [mmap.mmap(-1, BLOCK) for _ in range(2)]  # whole pages, which O_DIRECT needs
        self._rewrites: list[tuple[int, bytes]] = []
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes; they are copied before it returns."""
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
        """Replaces bytes that were written before by others of the same length, when the file is finished."""
        self._rewrites.append((offset, data))

    def finish(self) -> None:
        """Writes the rest, syncs the file to the disk, and closes it."""
        self._wait()
        number, filled = divmod(self.position, BLOCK)
        _write_all(self._file, number * BLOCK, memoryview(self._blocks[number % 2])[:filled])
        for offset, data in self._rewrites:
            _write_all(self._file, offset, memoryview(data))
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Closes the file, without what was not written yet."""
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
            # Some file systems accept O_DIRECT at open and reject the write.
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
