"""Measures the memory of this machine, or of the control group that limits us. Needs psutil (extra ``producer``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_OWN_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Names:
    """The names of a group's files, by the version of control groups.

    Attributes:
        droppable: the line of ``memory.stat`` that counts file pages which the system can drop.
    """

    limit: str
    used: str
    droppable: str


_FIRST = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = _Names("memory.max", "memory.current", "inactive_file")


def total_memory() -> int:
    """Returns the memory that can be used at most, in bytes: the machine's, or the control group's limit."""
    import psutil  # not at the top: reading the plan of a matrix must work without it

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())])


def free_memory() -> int:
    """Returns the memory that is available without swapping, in bytes; in a control group, within its limit."""
    import psutil

    left = [max(limit - used, 0) for limit, used in _limits()]
    return min([psutil.virtual_memory().available, *left])


def _limits() -> Iterator[tuple[int, int]]:
    """Yields the limit of each group around this process, and what is used of it without pages that can be dropped."""
    for folder, names in _groups():
        with suppress(OSError, ValueError):  # the group has no such file, or its limit is "max"
            yield int((folder / names.limit).read_text()), _used(folder, names)


def _used(folder: Path, names: _Names) -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = (folder / "memory.stat").read_text().splitlines()
        droppable = next((int(line.split()[1]) for line in lines if line.startswith(f"{names.droppable} ")), 0)
        return max(int((folder / names.used).read_text()) - droppable, 0)
    return 0


def _groups() -> Iterator[tuple[Path, _Names]]:
    """Yields the folders of this process's group and of those around it; a container may see the outermost alone."""
    lines = []
    with suppress(OSError):  # not on Linux
        lines = _OWN_GROUPS.read_text().splitlines()
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, names = _ROOT, _SECOND
        elif "memory" in controllers.split(","):
            root, names = _ROOT / "memory", _FIRST
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for part in (inner, *inner.parents):
            yield root / part, names
