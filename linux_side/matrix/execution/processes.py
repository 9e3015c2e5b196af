"""Runs verbs of ``trtcross`` in child processes: their documents, logs, times and peak memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from toolchain.errors import BuildFailedError, TrtcrossError, error_from_json

_PHASE = re.compile(rb"\[([a-z]+)\] .*\.\.\.$")


class Cancelled(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C
    """The run was stopped while a child was at work."""


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Attributes:
        document: what ``--json`` printed, or None.
        peak: the most memory that the child or one of its children had, in bytes.
    """

    code: int
    document: dict[str, Any] | None
    peak: int
    seconds: float
    timed_out: bool

    def error(self) -> TrtcrossError | None:
        """What went wrong, or None."""
        if self.timed_out:
            return BuildFailedError(
                f"it was not done after {self.seconds:.0f} s", remedy="give it longer with --timeout, or see its log"
            )
        if self.code == 0 and self.document is not None:
            return None
        if self.document and isinstance(self.document.get("error"), dict):
            return error_from_json(self.document["error"])
        how = f"was killed by signal {-self.code}" if self.code < 0 else f"ended with code {self.code}"
        return BuildFailedError(
            f"the process {how} and said nothing", remedy="see its log; signal 9 usually means too little memory"
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
            log: what it says goes here.
            on_phase: hears of each phase of a build.
            timeout: seconds.

        Raises:
            Cancelled: ``stop`` was called meanwhile.
        """
        command = [sys.executable, "-m", "linux_side.matrix.execution.child", str(os.getpid()), *arguments]
        start, expired = time.monotonic(), threading.Event()
        with tempfile.TemporaryFile() as out:
            child = self._start(command, out, cwd)
            timer = threading.Timer(timeout or 0, _expire, (child, expired))
            timer.daemon = True
            if timeout:
                timer.start()
            try:
                code, peak = _follow(child, log, on_phase)
            finally:
                timer.cancel()
                with self._lock:
                    self._running.discard(child)
            if self._stopped:
                raise Cancelled
            return Finished(code, _document(out), peak, time.monotonic() - start, expired.is_set())

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.terminate()

    def _start(self, command: Sequence[str], out: IO[bytes], cwd: str | None) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise Cancelled
            # A session of its own: Ctrl-C is for us, and we stop the children.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                cwd=cwd,
                start_new_session=True,
            )
            self._running.add(child)
            return child


def _expire(child: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    child.terminate()


def _follow(child: subprocess.Popen[bytes], log: IO[bytes], on_phase: Callable[[str], None]) -> tuple[int, int]:
    lines = child.stderr
    if lines is None:  # for the type checker: it is a pipe
        raise RuntimeError("the child has no pipe")
    with lines:
        for line in lines:
            log.write(line)
            if match := _PHASE.match(line.rstrip()):
                on_phase(match[1].decode())
    log.flush()
    # wait4 tells the peak of the child and of those that it waited for, and no other call does.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * 1024


def _document(out: IO[bytes]) -> dict[str, Any] | None:
    out.seek(0)
    try:
        document = json.loads(out.read())
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
