"""Which memory of this process is mapped from files: pages that the system drops and reads again as it likes."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SMAPS = Path("/proc/self/smaps")
_DELETED = " (deleted)"


@dataclass(frozen=True)
class Mapping:
    """A part of memory that is a file's.

    Attributes:
        path: the file's; None where it has no name any more.
    """

    start: int
    end: int
    path: Path | None


class MappedFiles:
    """What is mapped now."""

    def __init__(self) -> None:
        self._found = sorted(_read(), key=lambda mapping: mapping.start)

    def at(self, start: int, size: int) -> Mapping | None:
        """The mapping in which this memory is whole."""
        index = bisect.bisect_right(self._found, start, key=lambda mapping: mapping.start) - 1
        found = self._found[index] if index >= 0 else None
        return found if found and start + size <= found.end else None


def file_state(path: Path) -> tuple[int, int, int, int]:
    """What of a file is another where it was written to, or another took its place."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read() -> Iterator[Mapping]:
    """Mappings of files of which most was not written to: what was is memory."""
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
