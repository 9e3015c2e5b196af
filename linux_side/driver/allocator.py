"""How the C library gives memory back to the system that was freed (``man 3 mallopt``)."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 2**20


def give_freed_memory_back() -> None:
    """Lets large blocks be mapped one by one, and few heaps be kept.

    By default the limit for large blocks rises to 32 MiB with what is freed, and blocks below it stay in the heap of
    the thread that asked for them: of a decoder of 528 MiB the builder left 380 MiB there.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGE)
        library.mallopt(_M_ARENA_MAX, 2)


def trim() -> None:
    """Gives back what is free now."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
