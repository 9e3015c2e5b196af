"""Memory that a session reuses from call to call: blocks on the GPU, and pinned memory of the host."""

from __future__ import annotations

from collections import defaultdict
from threading import Lock

from windows_side.engines import cuda
from windows_side.engines.cuda import OutOfMemoryError

_SMALLEST = 512


class DeviceMemory:
    """A pool of blocks of one GPU's memory. Blocks are reused, and freed by :meth:`close` or when memory is short.

    Work on a block must be ordered after the work of whoever gave it back.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[int]] = defaultdict(list)
        self._sizes: dict[int, int] = {}
        self._lock = Lock()
        self._closed = False

    def take(self, size: int) -> int:
        """Returns the address of a block of at least ``size`` bytes on the current GPU.

        Raises:
            OutOfMemoryError: there is too little memory even after all free blocks were released.
        """
        size = _rounded(size)
        with self._lock:
            if self._free[size]:
                return self._free[size].pop()
            try:
                pointer = cuda.allocate(size)
            except OutOfMemoryError:
                self._release_free_blocks()
                pointer = cuda.allocate(size)
            self._sizes[pointer] = size
            return pointer

    def give_back(self, pointer: int) -> None:
        """Makes a block available to :meth:`take`; after :meth:`close` it is freed instead."""
        with self._lock:
            if self._closed:
                del self._sizes[pointer]
                cuda.free(pointer)
            else:
                self._free[self._sizes[pointer]].append(pointer)

    def close(self) -> None:
        """Frees the blocks that are not in use; others are freed when they are given back."""
        with self._lock:
            self._closed = True
            self._release_free_blocks()

    def _release_free_blocks(self) -> None:
        for blocks in self._free.values():
            while blocks:
                pointer = blocks.pop()
                del self._sizes[pointer]
                cuda.free(pointer)


def _rounded(size: int) -> int:
    """Rounds a size up to one of eight steps between powers of two, so that similar sizes share blocks."""
    size = max(size, _SMALLEST)
    step = 1 << max((size - 1).bit_length() - 4, 0)
    return -(-size // step) * step


class PinnedMemory:
    """One block of pinned memory, which a call divides into pieces."""

    def __init__(self) -> None:
        self._pointer = self._size = 0

    def reserve(self, sizes: list[int]) -> list[int]:
        """Returns the addresses of pieces of these sizes in bytes, which are valid until the next call."""
        total = sum(_aligned(size) for size in sizes)
        if total > self._size:
            self.close()
            self._pointer, self._size = cuda.allocate_pinned(_rounded(total)), _rounded(total)
        pieces, position = [], self._pointer
        for size in sizes:
            pieces.append(position)
            position += _aligned(size)
        return pieces

    def close(self) -> None:
        if self._pointer:
            cuda.free_pinned(self._pointer)
        self._pointer = self._size = 0


def _aligned(size: int) -> int:
    return -(-size // 256) * 256
