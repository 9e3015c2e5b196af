"""Events from a child process to the parent that started it: JSON documents, one a line, on a pipe of their own.

The parent passes the pipe's descriptor in the variable :data:`VARIABLE`. So nothing that a child prints gets between
the events, and stdout and stderr stay free for people. POSIX only.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import IO, Any

VARIABLE = "TRTCROSS_EVENTS_FD"


class EventWriter:
    """The child's end of the pipe; any thread may send."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, **event: Any) -> None:
        line = json.dumps(event) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Closes the pipe, which tells the parent that nothing more will come."""
        with self._lock:
            self._file.close()


@lru_cache(maxsize=1)
def events_to_parent() -> EventWriter | None:
    """Returns the writer for this process's events; None if its parent passed no pipe.

    The variable is removed from the environment: it does not apply to this process's own children.
    """
    descriptor = os.environ.pop(VARIABLE, None)
    return None if descriptor is None else EventWriter(int(descriptor))


def start_child(command: Sequence[str], **options: Any) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Starts a child that sends events.

    Args:
        command: the command line.
        options: further arguments of ``subprocess.Popen``.

    Returns:
        The child, and the stream for :func:`read_events`, which the caller closes.
    """
    reader, writer = os.pipe()
    try:
        environment = {**os.environ, VARIABLE: str(writer)}
        child = subprocess.Popen(command, env=environment, pass_fds=(writer,), **options)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return child, os.fdopen(reader, "rb")


def read_events(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yields events as they come, until the child has ended; an event that a kill cut short is left out."""
    for line in stream:
        if line.endswith(b"\n"):
            yield json.loads(line)
