"""How much memory this machine has, or the container that we are in."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int | None:
    """In bytes; None where the machine does not tell."""
    return _least(_meminfo("MemTotal"), _cgroup_limit())


def free_memory() -> int | None:
    """What can be had without swapping, in bytes; None where the machine does not tell."""
    return _least(_meminfo("MemAvailable"), _cgroup_limit())


def _least(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size), default=None)


def _meminfo(name: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def _cgroup_limit() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(_CGROUP.read_text())
    return None
