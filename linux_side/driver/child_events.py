"""Follows a build process's events, determines its error when it ends, and removes the partial files it left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError, error_from_json
from toolchain.host.memory import free_memory
from toolchain.io.atomic import part_prefix
from toolchain.text import size_text

OnEvent = Callable[[dict[str, Any]], None]


class ChildEvents:
    """Passes on the events of a build process, and keeps what is needed to explain its end.

    Args:
        report: receives each event other than ``error``.
    """

    def __init__(self, report: OnEvent) -> None:
        self._report = report
        self._error: TrtcrossError | None = None
        self._told: dict[str, Any] = {}

    def add(self, event: dict[str, Any]) -> None:
        """Takes one event."""
        if event["event"] == "error":
            self._error = error_from_json(event["error"])
        else:
            self._told.update(event)
            self._report(event)

    def error_of(self, ended: ProcessEnd, log: IO[bytes], start: int | None) -> TrtcrossError | None:
        """Returns the error that the process reported, or one that describes how it ended; None on success.

        Args:
            ended: how the process ended.
            log: what it printed.
            start: where its part of ``log`` begins; None if the log cannot be read again.
        """
        if self._error is not None or not (ended.code or ended.signal):
            return self._error
        return _crashed(ended, log, start, self._told)


def remove_parts(out: Path, pid: int) -> None:
    """Removes the partial files that a process left beside ``out``; those of other processes stay.

    Args:
        out: the artifact's path.
        pid: the process that has ended.
    """
    prefix = part_prefix(out, pid)
    for path in out.parent.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def _crashed(ended: ProcessEnd, log: IO[bytes], start: int | None, told: Mapping[str, Any]) -> BuildFailedError:
    """Returns the error of a build process that ended without reporting one.

    Args:
        ended: how the process ended.
        log: what it printed.
        start: where its part of ``log`` begins; None if the log cannot be read again.
        told: the latest value of each member of the process's events.
    """
    tail = ""
    if start is not None and log.readable():
        log.seek(start)
        tail = "\n".join(log.read().decode(errors="replace").splitlines()[-15:])
    return BuildFailedError(
        f"the build process {ended}" + (f"; its last output:\n{tail}" if tail else ""),
        where=f"linux_side.driver.worker, phase {told.get('phase', 'import')!r}",
        remedy=_remedy(ended, told),
        ended=ended,
    )


def _remedy(ended: ProcessEnd, told: Mapping[str, Any]) -> str:
    if ended.killed:
        return _after_a_kill(told)
    if ended.signal == signal.SIGBUS:
        return (
            "SIGBUS means that a file of weights became shorter, or its disk failed: build again while nothing writes "
            "to that file"
        )
    return "please report it, with this text"


def _after_a_kill(told: Mapping[str, Any]) -> str:
    remedy = "SIGKILL usually means too little memory: build on a bigger machine"
    if "memory" in told:
        estimate, free = size_text(told["memory"]), size_text(free_memory())
        remedy += f", or in halves (this build was estimated to need {estimate}; {free} is free now)"
    return remedy
