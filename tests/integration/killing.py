"""Killing a process in a phase of its work: for what must leave nothing half-done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

Tell = Callable[[str], object]


def kill_in_phase(work: Callable[[Tell], object], phases: Sequence[str], target: str, delay: float) -> str | None:
    """Lets a forked process work, and ends it with SIGKILL ``delay`` seconds after it has reported a phase.

    Args:
        work: runs in the child; its argument is a function that reports the phase that it enters.
        phases: all phases that it may report.
        target: the phase to wait for.

    Returns:
        The last phase that it reported, or None if it ended before the target.
    """
    pid, reader = forked(work, phases)
    told = b""
    while phases.index(target) not in told and (more := os.read(reader, 1)):
        told += more
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while more := os.read(reader, 64):
        told += more
    os.close(reader)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the process failed by itself"
        return None
    return phases[told[-1]]


def forked(work: Callable[[Tell], object], phases: Sequence[str]) -> tuple[int, int]:
    """Starts work in a forked process: its process id, and the pipe that gives a byte, an index, for each phase."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        os.close(reader)
        work(lambda phase: os.write(writer, bytes([phases.index(phase)])))
        code = 0
    finally:
        os._exit(code)
