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
    """What can be had without swapping, in bytes; in a container what its limit leaves."""
    import psutil

    available = psutil.virtual_memory().available
    return max(min(available, _limited(psutil.virtual_memory().total) - _used_of_limit()), 0)


def _used_of_limit() -> int:
    """What the container has used of its limit, without pages of files that it can drop; 0 where there is no limit."""
    folder = _CGROUP_LIMIT.parent
    try:
        int(_CGROUP_LIMIT.read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        droppable = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        return max(int((folder / "memory.current").read_text()) - droppable, 0)
    except (OSError, ValueError, IndexError):
        return 0


def _limited(size: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
        return min(size, int(_CGROUP_LIMIT.read_text()))
    return size
