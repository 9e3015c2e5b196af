"""How much memory a process has of its own: what it shares with the process that it was forked of is not its."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_EVERY_S = 0.1
# A look at each page takes longer than one at the sum: it is taken where the sum has grown by so much, and now and
# then, for a page that is written to is a process's own from then on, and the sum stays.
_GROWN = 1.03
_LOOK_S = 2.0


class Peak:
    """Looks at a process while a block runs.

    Attributes:
        highest: the most that it had, in bytes, of memory that is no file's.
        last: what it had when it was looked at last.
    """

    def __init__(self, pid: int | None) -> None:
        self.highest = self.last = 0
        self._folder = Path(f"/proc/{pid}") if pid else None
        self._sum, self._looked = 0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._folder and not self._done.wait(_EVERY_S):
            with suppress(OSError, ValueError, IndexError):  # it has ended
                self._look(self._folder)
        if self._folder:
            with suppress(OSError, ValueError, IndexError):
                self.last = _kilobytes(self._folder / "smaps_rollup", "Private_Dirty:") or self.last

    def _look(self, folder: Path) -> None:
        everything = _kilobytes(folder / "status", "RssAnon:")
        if everything > self._sum * _GROWN or time.monotonic() > self._looked + _LOOK_S:
            self._sum, self._looked = max(everything, self._sum), time.monotonic()
            self.last = _kilobytes(folder / "smaps_rollup", "Private_Dirty:")
            self.highest = max(self.highest, self.last)


def _kilobytes(path: Path, name: str) -> int:
    """A figure of one of Linux's tables, in bytes."""
    line = next((line for line in path.read_text().splitlines() if line.startswith(name)), "")
    return int(line.split()[1]) * 1024
