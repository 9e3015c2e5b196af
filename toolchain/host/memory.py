"""How much memory this machine has, or the container that we are in. Needs psutil (extra ``producer``)."""

from __future__ import annotations

import contextlib
from pathlib import Path

# Of control groups version 2. Version 1, which systemd and the container runtimes have given up, is not read: there a
# container's own limit is not seen, and `matrix run --memory` must say it.
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int:
    """In bytes."""
    import psutil  # not at the top: whoever reads a plan of a matrix need not have it

    return _limited(psutil.virtual_memory().total)


def free_memory() -> int:
    """What can be had without swapping, in bytes."""
    import psutil

    return _limited(psutil.virtual_memory().available)


def _limited(size: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
        return min(size, int(_CGROUP_LIMIT.read_text()))
    return size
