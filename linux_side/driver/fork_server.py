"""The fork server: a process that does the common stages of several builds once and is forked for the rest.

``python -m linux_side.driver.fork_server PARENT SOCKET FOLDER`` starts the first server, in which no stage is done.
Each request on its socket forks one child and passes it the child's files. The child runs the requested stages, then
ends or becomes a server itself. ``linux_side.driver.forks`` is the parent's end.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from linux_side.driver.allocator import give_freed_memory_back, trim
from linux_side.driver.end_with_parent import end_with_parent
from linux_side.driver.forking import begin_few_threads, fork_blocker
from linux_side.driver.worker import Build, BuildProgress, end
from toolchain.errors import TrtcrossError
from toolchain.io.events import EventWriter

# A request only names a file with the job, so it is short.
MOST_BYTES = 4096
# A child's files, in the order in which they are sent. `socket` is sent only to a child that becomes a server.
FILES = ("events", "status", "log", "socket")


@dataclass
class _Child:
    pid: int
    descriptor: int
    status: IO[str]


@dataclass
class _Server:
    """A partly done build that children continue.

    Attributes:
        requests: the socket that requests arrive on.
        build: the stages done so far.
        children: the running children, by the pidfd that becomes readable when one ends.
    """

    requests: socket.socket
    build: Build
    children: dict[int, _Child] = field(default_factory=dict)

    def serve(self) -> None:
        """Forks a child for each request until the socket is closed, then kills the children that still run."""
        gc.collect()
        trim()
        gc.freeze()  # otherwise a collection in a child would write to, and so copy, the page of every object
        with selectors.DefaultSelector() as selector:
            selector.register(self.requests, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd in self.children:
                        selector.unregister(key.fd)
                        self._reap(self.children.pop(key.fd))
                        continue
                    message, files, _, _ = socket.recv_fds(self.requests, MOST_BYTES, len(FILES))
                    for descriptor in files:
                        os.set_inheritable(descriptor, False)
                    if not message:
                        self.end_children()
                        return
                    request = json.loads(message)
                    if "kill" in request:
                        self._kill(request["kill"])
                    elif child := self._fork(request["request"], files, selector):
                        self.children[child.descriptor] = child
                        selector.register(child.descriptor, selectors.EVENT_READ)

    def _fork(self, request: str, files: list[int], selector: selectors.BaseSelector) -> _Child:
        server = os.getpid()
        pid = os.fork()
        if not pid:
            selector.close()
            self.requests.close()
            for other in self.children.values():
                os.close(other.descriptor)
                other.status.close()
            _become(self.build, Path(request), dict(zip(FILES, files, strict=False)), server)
        descriptors = dict(zip(FILES, files, strict=False))
        status = os.fdopen(descriptors.pop("status"), "w")
        for descriptor in descriptors.values():
            os.close(descriptor)
        _tell(status, pid=pid)
        return _Child(pid, os.pidfd_open(pid), status)

    def _reap(self, child: _Child) -> None:
        _, code = os.waitpid(child.pid, 0)
        os.close(child.descriptor)
        _tell(child.status, ended=os.waitstatus_to_exitcode(code))
        with suppress(OSError):
            child.status.close()

    def _kill(self, pid: int) -> None:
        """Kills a child and the processes that it started, unless it has been reaped already."""
        if any(child.pid == pid for child in self.children.values()):
            with suppress(ProcessLookupError):  # it has no process group yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def end_children(self) -> None:
        """Kills and reaps every child."""
        for child in list(self.children.values()):
            self._kill(child.pid)
            self._reap(child)


def _tell(status: IO[str], **message: int) -> None:
    with suppress(OSError):  # the parent no longer listens
        status.write(json.dumps(message) + "\n")
        status.flush()


def _become(build: Build, request: Path, files: dict[str, int], server: int) -> NoReturn:
    """Turns the forked process into a child that runs one request, and ends it."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        atexit._clear()  # the server's exit functions run in the server only
        end_with_parent(server)
        os.close(files["status"])
        for stream in (1, 2):
            os.dup2(files["log"], stream)
        os.close(files["log"])
        events = EventWriter(files["events"])
        code = _work(build, json.loads(request.read_text()), events, files.get("socket"))
    except BaseException:  # noqa: BLE001 - the frames above this one belong to the server, so nothing may propagate
        traceback.print_exc()
    end(code)


def _work(build: Build, request: dict[str, Any], events: EventWriter, requests: int | None) -> int:
    progress = BuildProgress(events)
    try:
        left = build.run(request["jobs"], progress, request["until"])
    except TrtcrossError as error:
        traceback.print_exc()
        events.send(event="error", error=error.to_json())
        return 1
    if requests is None:
        events.send(event="done")
        return 0
    reason = fork_blocker() if left else None
    events.send(event="ready", left=[job["out"] for job in left], reason=reason, weights=build.weights)
    events.close()
    if left and reason is None:
        _Server(socket.socket(fileno=requests), build).serve()
    return 0


def _terminated(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    """Serves the process whose id is the first argument until it closes the socket; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    end_with_parent(int(sys.argv[1]))
    give_freed_memory_back()
    begin_few_threads()
    server = _Server(socket.socket(fileno=int(sys.argv[2])), Build())
    try:
        server.serve()
    except SystemExit:  # the parent was killed and cannot remove its temporary folder
        server.end_children()
        shutil.rmtree(sys.argv[3], ignore_errors=True)
        raise
    return 0


if __name__ == "__main__":
    end(main())
