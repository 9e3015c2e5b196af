"""The parent's end of ``linux_side.driver.fork_server``: processes that are forked, what they say, and their end."""

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

from linux_side.driver.ear import OnEvent
from linux_side.driver.peak import Peak
from toolchain.errors import ProcessEnd
from toolchain.io.events import read_events
from toolchain.io.python_child import python_child


@dataclass(frozen=True)
class Ended:
    """How a forked process went.

    Attributes:
        ended: how it ended; None where it waits to be forked.
        peak: the most memory that it had of its own, in bytes.
        now: what it has of its own at last.
        timed_out: whether it was ended for the time that it took.
    """

    ended: ProcessEnd | None
    peak: int
    now: int
    timed_out: bool = False


class Server:
    """A process that can be forked; any thread may ask for children."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lock = threading.Lock()

    def fork(self, request: Path, files: Sequence[int]) -> None:
        self._send({"request": str(request)}, files)

    def kill(self, pid: int) -> None:
        with suppress(OSError):  # the server has ended, and its children with it
            self._send({"kill": pid}, ())

    def close(self) -> None:
        """Ends it, and what was forked of it and still runs."""
        with self._lock:
            self._requests.close()

    def _send(self, message: dict[str, Any], files: Sequence[int]) -> None:
        with self._lock:
            socket.send_fds(self._requests, [json.dumps(message).encode()], files)


class Root:
    """The first server, in which nothing is done yet.

    Start it in a thread that lives as long as it must: Linux ends it with that.

    Args:
        folder: of temporary files, which it removes where its parent is killed and cannot.
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
        self.server.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it cannot get away from a child
            self._process.kill()
            self._process.wait()


class Fork:
    """A process that is forked of another.

    Args:
        folder: where the request goes.
        request: the ``jobs``, and the last stage, ``until``.
        log: what it prints goes here.
        waits: whether it then waits to be forked.

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
        """Listens until it has ended, or waits to be forked.

        Args:
            timeout: seconds after which it is ended.

        Raises:
            ConnectionError: the process that it was forked of has ended, and has taken it along.
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
            raise ConnectionError("the process that it was forked of has ended")
        ended = ProcessEnd(signal=9) if code is None else ProcessEnd.of(code)
        return Ended(ended, peak.highest, 0, expired.is_set())

    def kill(self) -> None:
        if self.pid is not None:
            self._of.kill(self.pid)

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        self.kill()

    def _told(self, member: str) -> int | None:
        """What its server says of it; None where that has ended."""
        line = self._status.readline()
        found = json.loads(line).get(member) if line.endswith(b"\n") else None
        return found if isinstance(found, int) else None
