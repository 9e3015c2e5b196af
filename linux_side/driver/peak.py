"""The peak of a process's private memory, which excludes pages still shared with the process it was forked from."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_INTERVAL_S = 0.1
# Private memory (smaps_rollup) takes longer to read than total anonymous memory (status). It is read when the total has
# grown by this factor, and every two seconds: a write to a shared page makes it private and leaves the total unchanged.
_GROWTH = 1.03
_PRIVATE_INTERVAL_S = 2.0


class Peak:
    """Samples a process's private memory while a ``with`` block runs.

    Args:
        pid: the process; None to sample nothing.

    Attributes:
        highest: the greatest sample of private dirty memory, in bytes.
        last: the last sample, in bytes.
    """

    def __init__(self, pid: int | None) -> None:
        self.highest = self.last = 0
        self._folder = Path(f"/proc/{pid}") if pid else None
        self._total, self._sampled = 0, 0.0
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
        while self._folder and not self._done.wait(_INTERVAL_S):
            with suppress(OSError, ValueError, IndexError):  # the process has ended
                self._sample(self._folder)
        if self._folder:
            with suppress(OSError, ValueError, IndexError):
                self.last = _bytes(self._folder / "smaps_rollup", "Private_Dirty:") or self.last

    def _sample(self, folder: Path) -> None:
        total = _bytes(folder / "status", "RssAnon:")
        if total > self._total * _GROWTH or time.monotonic() > self._sampled + _PRIVATE_INTERVAL_S:
            self._total, self._sampled = max(total, self._total), time.monotonic()
            self.last = _bytes(folder / "smaps_rollup", "Private_Dirty:")
            self.highest = max(self.highest, self.last)


def _bytes(path: Path, name: str) -> int:
    """Returns the field ``name`` of a file in /proc, which gives it in kB, in bytes."""
    line = next((line for line in path.read_text().splitlines() if line.startswith(name)), "")
    return int(line.split()[1]) * 1024
