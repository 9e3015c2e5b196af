"""The parent's end of ``linux_side.driver.fork_server``: starts forked processes and follows them to their end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from linux_side.driver.child_events import OnEvent
from linux_side.driver.peak import Peak
from toolchain.errors import ProcessEnd
from toolchain.io.events import read_events
from toolchain.io.python_child import python_child


@dataclass(frozen=True)
class Ended:
    """The state of a forked process when the parent stopped following it.

    Attributes:
        ended: how the process ended; None if it now waits to be forked.
        peak: the peak of its private memory, in bytes.
        now: its private memory now, in bytes; 0 if it has ended.
        timed_out: whether it was killed because its time was over.
    """

    ended: ProcessEnd | None
    peak: int
    now: int
    timed_out: bool = False


class Server:
    """The connection to a process that can be forked. Any thread may use it."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lock = threading.Lock()

    def fork(self, request: Path, files: Sequence[int]) -> None:
        """Asks the process for a child.

        Args:
            request: the file with the child's jobs.
            files: descriptors for the child, in the order of ``fork_server.FILES``.

        Raises:
            OSError: the process has ended.
        """
        self._send({"request": str(request)}, files)

    def kill(self, pid: int) -> None:
        """Asks the process to kill one of its children."""
        with suppress(OSError):  # the server has ended, and its children with it
            self._send({"kill": pid}, ())

    def close(self) -> None:
        """Closes the connection, which ends the process and its running children."""
        with self._lock:
            self._requests.close()

    def _send(self, message: dict[str, Any], files: Sequence[int]) -> None:
        with self._lock:
            socket.send_fds(self._requests, [json.dumps(message).encode()], files)


class Root:
    """The first fork server, in which no stage is done.

    Linux ends the process together with the thread that started it, so that thread must outlive it.

    Args:
        folder: a folder of temporary files, which the process removes if its parent is killed.
    """

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = python_child("linux_side.driver.fork_server", str(os.getpid()), str(theirs.fileno()), str(folder))
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        self.server = Server(ours)

    def close(self) -> None:
        """Ends the process and its children, and waits for that."""
        self.server.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it hangs waiting for a child
            self._process.kill()
            self._process.wait()


class Fork:
    """A process forked from a server.

    Args:
        server: the process to fork.
        folder: where the request's file is written.
        request: ``jobs``, and ``until``, the last stage to run.
        log: receives what the process prints.
        waits: whether the process becomes a server after that stage.

    Attributes:
        server: the connection to it as a server; None unless ``waits``.
        pid: its process id, once ``follow`` has learned it.

    Raises:
        OSError: the process to be forked has ended.
    """

    def __init__(self, server: Server, folder: Path, request: dict[str, Any], log: IO[bytes], *, waits: bool) -> None:
        self._of = server
        self.server: Server | None = None
        self.pid: int | None = None
        path = Path(tempfile.mkdtemp(dir=folder)) / "request.json"
        path.write_text(json.dumps(request))
        with ExitStack() as theirs:
            pairs = [os.pipe(), os.pipe()]
            files = [writer for _, writer in pairs] + [log.fileno()]
            for _, writer in pairs:
                theirs.callback(os.close, writer)
            self._events, self._status = (os.fdopen(reader, "rb") for reader, _ in pairs)
            if waits:
                ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.callback(far.close)
                files.append(far.fileno())
                self.server = Server(ours)
            server.fork(path, files)

    def follow(self, on_event: OnEvent, timeout: float | None = None) -> Ended:
        """Passes on the process's events until it has ended or waits to be forked.

        Args:
            on_event: receives each event. If it raises, the process is killed.
            timeout: seconds after which the process is killed; None for no limit.

        Raises:
            ConnectionError: the server has ended, and this process with it.
        """
        self.pid = self._told("pid")
        expired = threading.Event()
        timer = threading.Timer(timeout or 0, self._expire, [expired])
        timer.daemon = True
        if timeout:
            timer.start()
        waits = False
        try:
            with self._events, Peak(self.pid) as peak:
                for event in read_events(self._events):
                    waits = waits or (event["event"] == "ready" and bool(event["left"]) and not event["reason"])
                    on_event(event)
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()
        if waits and not expired.is_set():
            return Ended(None, peak.highest, peak.last)
        with self._status:
            code = self._told("ended")
        if code is None and not expired.is_set():
            raise ConnectionError("the process that it was forked from has ended")
        ended = ProcessEnd(signal=9) if code is None else ProcessEnd.of(code)
        return Ended(ended, peak.highest, 0, expired.is_set())

    def kill(self) -> None:
        """Kills the process, if it has been started."""
        if self.pid is not None:
            self._of.kill(self.pid)

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        self.kill()

    def _told(self, member: str) -> int | None:
        """Reads one number about the process from its server; None if the server has ended."""
        line = self._status.readline()
        found = json.loads(line).get(member) if line.endswith(b"\n") else None
        return found if isinstance(found, int) else None
