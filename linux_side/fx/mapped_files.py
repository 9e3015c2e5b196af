"""Finds the memory of this process that is mapped from files, whose pages the system can drop and read again."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from toolchain.errors import BuildFailedError

_SMAPS = Path("/proc/self/smaps")
_DELETED = " (deleted)"

FileState: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mapping:
    """A range of addresses that is mapped from a file.

    Attributes:
        start: the first address.
        end: one past the last address.
        path: the file; None if it has been deleted.
    """

    start: int
    end: int
    path: Path | None


class MappedFiles:
    """The files that are mapped when the object is created."""

    def __init__(self) -> None:
        self._found = sorted(_read(), key=lambda mapping: mapping.start)

    def at(self, start: int, size: int) -> Mapping | None:
        """Returns the mapping that contains ``size`` bytes from address ``start`` completely, or None."""
        index = bisect.bisect_right(self._found, start, key=lambda mapping: mapping.start) - 1
        found = self._found[index] if index >= 0 else None
        return found if found and start + size <= found.end else None


def file_state(path: Path) -> FileState:
    """Returns device, inode, size and time of change of a file, which differ after a write or a replacement."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def require_unchanged(path: Path, state: FileState) -> None:
    """Requires that a file has not changed since it was mapped.

    Args:
        path: the file with the mapped weights.
        state: the result of :func:`file_state` when it was mapped.

    Raises:
        BuildFailedError: the file was written to or replaced, so what was read from it is unknown.
    """
    try:
        now = file_state(path)
    except OSError:
        return  # the file was deleted; its mapped content is unchanged
    if now != state:
        raise BuildFailedError(
            "the model's weights were written to while they were built, and what was read is not known",
            where=str(path),
            remedy="build again while nothing writes to that file",
        )


def _read() -> Iterator[Mapping]:
    """Yields the mappings of which less than half was written to: written pages are memory, not the file's."""
    if not _SMAPS.exists():
        return
    start = end = 0
    path: str | None = None
    for line in _SMAPS.read_text(errors="surrogateescape").splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):
            start, end = (int(number, 16) for number in words[0].split("-"))
            path = words[5] if len(words) == 6 and int(words[4]) else None
        elif words[0] == "Anonymous:" and path and 2 * int(words[1]) * 1024 < end - start:
            yield Mapping(start, end, None if path.endswith(_DELETED) else Path(path))
