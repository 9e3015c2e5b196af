"""Measures the memory of this machine, or of the container that we run in. Needs psutil (extra ``producer``)."""

from __future__ import annotations

import contextlib
from pathlib import Path

# The limit of control groups version 2. Version 1, which systemd and the container runtimes have given up, is not read:
# there, `matrix run --memory` must state a container's limit.
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int:
    """Returns the memory that can be used at most, in bytes: the machine's, or the container's limit."""
    import psutil  # not at the top: reading the plan of a matrix must work without it

    return _limited(psutil.virtual_memory().total)


def free_memory() -> int:
    """Returns the memory that is available without swapping, in bytes; in a container, within its limit."""
    import psutil

    available = psutil.virtual_memory().available
    return max(min(available, _limited(psutil.virtual_memory().total) - _used_of_limit()), 0)


def _used_of_limit() -> int:
    """Returns how much of its limit the container uses, without file pages that can be dropped; 0 without a limit."""
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
