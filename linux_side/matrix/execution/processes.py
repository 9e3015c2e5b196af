"""Runs commands of ``trtcross`` in child processes, and collects their events, documents, times and peak memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError, error_from_json
from toolchain.io.events import read_events, start_child
from toolchain.io.python_child import python_child


class Cancelled(Exception):  # noqa: N818 - not an error: the user pressed Ctrl-C
    """The run was stopped while a child was running."""


@dataclass(frozen=True)
class Finished:
    """The outcome of a child process.

    Attributes:
        ended: how the process ended.
        document: the command's JSON document; None if it sent none.
        peak: the peak memory of the child or of one of its children, in bytes.
        seconds: how long it took.
        timed_out: whether it was ended because its time was over.
    """

    ended: ProcessEnd
    document: dict[str, Any] | None
    peak: int
    seconds: float
    timed_out: bool

    def error(self) -> TrtcrossError | None:
        """Returns the error of the command or of its process; None on success."""
        if self.timed_out:
            return BuildFailedError(
                f"it was not done after {self.seconds:.0f} s",
                remedy="give it longer with --timeout, or see its log",
                ended=self.ended,
            )
        if self.ended.code == 0 and self.document is not None:
            return None
        if self.document and isinstance(self.document.get("error"), dict):
            return error_from_json(self.document["error"])
        return BuildFailedError(
            f"the process {self.ended} and reported nothing",
            remedy="see its log; SIGKILL usually means too little memory",
            ended=self.ended,
        )


class Processes:
    """The child processes of one run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(
        self,
        arguments: Sequence[str],
        log: IO[bytes],
        *,
        on_phase: Callable[[str], None] = lambda _: None,
        timeout: float | None = None,
        cwd: str | None = None,
    ) -> Finished:
        """Runs ``trtcross ARGUMENTS`` and waits for its end.

        Args:
            arguments: the command and its arguments.
            log: receives what the process prints.
            on_phase: called with each phase of a build.
            timeout: seconds after which the process is ended; None for no limit.
            cwd: the process's current folder.

        Raises:
            Cancelled: ``stop`` was called meanwhile.
        """
        command = python_child("linux_side.matrix.execution.child", str(os.getpid()), *arguments)
        start, expired = time.monotonic(), threading.Event()
        child, events = self._start(command, log, cwd)
        timer = threading.Timer(timeout or 0, _expire, (child, expired))
        timer.daemon = True
        if timeout:
            timer.start()
        try:
            document = _follow(events, on_phase)
            ended, peak = _wait(child)
        finally:
            timer.cancel()
            with self._lock:
                self._running.discard(child)
        if self._stopped:
            raise Cancelled
        return Finished(ended, document, peak, time.monotonic() - start, expired.is_set())

    def stop(self) -> None:
        """Ends every running child, and prevents further ones."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.terminate()

    def _start(
        self, command: Sequence[str], log: IO[bytes], cwd: str | None
    ) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        with self._lock:
            if self._stopped:
                raise Cancelled
            # In a session of its own, the child does not receive Ctrl-C: we end it in order.
            child, events = start_child(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, start_new_session=True
            )
            self._running.add(child)
            return child, events


def _expire(child: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    child.terminate()


def _follow(events: IO[bytes], on_phase: Callable[[str], None]) -> dict[str, Any] | None:
    """Reads a command's events to the end, and returns its document, which is the last event."""
    document: dict[str, Any] | None = None
    with events:
        for event in read_events(events):
            if event["event"] == "start":
                on_phase(event["phase"])
            elif event["event"] == "document":
                document = event["document"]
    return document


def _wait(child: subprocess.Popen[bytes]) -> tuple[ProcessEnd, int]:
    # Only wait4 reports the peak memory of the child and of the processes that it waited for.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return ProcessEnd.of(child.returncode), usage.ru_maxrss * 1024
