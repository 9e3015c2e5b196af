"""A build in a process of its own, which shares nothing and can be killed from another thread."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import ExitStack
from typing import IO

from linux_side.driver.building import Prepared, run_alone
from linux_side.driver.leaf import Outcome
from linux_side.driver.peak import Peak
from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError


class Alone:
    """One build in a process of its own."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._killed = False

    def run(self, log: IO[bytes], timeout: float | None) -> Outcome:
        """Runs the build to its end.

        Args:
            log: receives what the process prints.
            timeout: seconds after which the process is killed; None for no limit.

        Returns:
            The artifact or the error, with the process's peak memory and its seconds.
        """
        start, expired = time.monotonic(), threading.Event()

        def expire() -> None:
            expired.set()
            self.kill()

        timer = threading.Timer(timeout or 0, expire)
        timer.daemon = True
        error: TrtcrossError | None = None
        with ExitStack() as watched:
            peaks: list[Peak] = []

            def begun(child: subprocess.Popen[bytes]) -> None:
                with self._lock:
                    self._child = child
                    if self._killed:
                        child.kill()
                peaks.append(watched.enter_context(Peak(child.pid)))
                if timeout:
                    timer.start()

            try:
                run_alone(self._prepared, log, begun)
            except TrtcrossError as raised:
                error = raised
            finally:
                timer.cancel()
        peak = peaks[0].highest if peaks else None
        seconds = time.monotonic() - start
        if expired.is_set():
            error = too_long(ProcessEnd(signal=9), timeout)
        artifact = None if error else self._prepared.finished()
        return Outcome(artifact, error, peak, seconds)

    def kill(self) -> None:
        """Kills the process; one that has not started yet is killed as it starts."""
        with self._lock:
            self._killed = True
            if self._child and self._child.returncode is None:
                self._child.kill()


def too_long(ended: ProcessEnd | None, timeout: float | None) -> BuildFailedError:
    """Returns the error of a build that was killed because its time was over."""
    return BuildFailedError(
        f"it was not done after {timeout or 0:.0f} s",
        remedy="give it longer with --timeout, or see its log",
        ended=ended,
    )
