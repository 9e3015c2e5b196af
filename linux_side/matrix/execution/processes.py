"""Runs verbs of ``trtcross`` in child processes: their events and documents, logs, times and peak memory."""

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


class Cancelled(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C
    """The run was stopped while a child was at work."""


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Attributes:
        document: what the verb had to say, or None.
        peak: the most memory that the child or one of its children had, in bytes.
    """

    ended: ProcessEnd
    document: dict[str, Any] | None
    peak: int
    seconds: float
    timed_out: bool

    def error(self) -> TrtcrossError | None:
        """What went wrong, or None."""
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
            f"the process {self.ended} and said nothing",
            remedy="see its log; SIGKILL usually means too little memory",
            ended=self.ended,
        )


class Processes:
    """The children of one run; ``stop`` ends them all."""

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
        """Runs ``trtcross ARGUMENTS`` to its end; blocks.

        Args:
            log: what it prints goes here.
            on_phase: hears of each phase of a build.
            timeout: seconds.

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
            # A session of its own: Ctrl-C is for us, and we stop the children.
            child, events = start_child(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, start_new_session=True
            )
            self._running.add(child)
            return child, events


def _expire(child: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    child.terminate()


def _follow(events: IO[bytes], on_phase: Callable[[str], None]) -> dict[str, Any] | None:
    """Listens to a verb until its end; gives its document, which is the last thing that it sends."""
    document: dict[str, Any] | None = None
    with events:
        for event in read_events(events):
            if event["event"] == "start":
                on_phase(event["phase"])
            elif event["event"] == "document":
                document = event["document"]
    return document


def _wait(child: subprocess.Popen[bytes]) -> tuple[ProcessEnd, int]:
    # wait4 tells the peak of the child and of those that it waited for, and no other call does.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return ProcessEnd.of(child.returncode), usage.ru_maxrss * 1024
