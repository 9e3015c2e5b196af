"""A process that is forked for builds: what several share is done in it once, and each child goes on from there.

``python -m linux_side.driver.fork_server PARENT SOCKET FOLDER`` begins with nothing done. On its socket comes a request
for each child, with the child's files; the child does the stages that it is asked for, and ends, or serves requests
itself.
``linux_side.driver.forks`` is the other end.
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
from linux_side.driver.forking import begin_few_threads, why_not_forked
from linux_side.driver.worker import Build, BuildProgress, end
from toolchain.errors import TrtcrossError
from toolchain.io.events import EventWriter

# Of a request, which names a file: the rest is in there.
MOST_BYTES = 4096
# A child's files, in their order; the last is there where it will serve requests.
FILES = ("events", "status", "log", "socket")


@dataclass
class _Child:
    pid: int
    descriptor: int
    status: IO[str]


@dataclass
class _Server:
    """A build that others go on from, each in a child.

    Attributes:
        build: what is done so far.
        children: by the descriptor that tells of their end.
    """

    requests: socket.socket
    build: Build
    children: dict[int, _Child] = field(default_factory=dict)

    def serve(self) -> None:
        """Forks a child for each request, until nobody will ask any more; then what still runs is ended."""
        gc.collect()
        trim()
        gc.freeze()  # a collection in a child would write to each object's page
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
        """Ends a child of ours and what it started, if it has not ended."""
        if any(child.pid == pid for child in self.children.values()):
            with suppress(ProcessLookupError):  # it has no group yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def end_children(self) -> None:
        for child in list(self.children.values()):
            self._kill(child.pid)
            self._reap(child)


def _tell(status: IO[str], **message: int) -> None:
    with suppress(OSError):  # nobody listens any more
        status.write(json.dumps(message) + "\n")
        status.flush()


def _become(build: Build, request: Path, files: dict[str, int], server: int) -> NoReturn:
    """What a child does from its first moment on."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        atexit._clear()  # what asked to be called at the end of the server is called there
        end_with_parent(server)
        os.close(files["status"])
        for stream in (1, 2):
            os.dup2(files["log"], stream)
        os.close(files["log"])
        events = EventWriter(files["events"])
        code = _work(build, json.loads(request.read_text()), events, files.get("socket"))
    except BaseException:  # noqa: BLE001 - a fork's frames above this one are the server's
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
    reason = why_not_forked() if left else None
    events.send(event="ready", left=[job["out"] for job in left], reason=reason, weights=build.weights)
    events.close()
    if left and reason is None:
        _Server(socket.socket(fileno=requests), build).serve()
    return 0


def _terminated(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    """Serves the process whose id is the first argument, until it asks no more."""
    signal.signal(signal.SIGTERM, _terminated)
    end_with_parent(int(sys.argv[1]))
    give_freed_memory_back()
    begin_few_threads()
    server = _Server(socket.socket(fileno=int(sys.argv[2])), Build())
    try:
        server.serve()
    except SystemExit:  # the parent was killed: what it would have removed is removed here
        server.end_children()
        shutil.rmtree(sys.argv[3], ignore_errors=True)
        raise
    return 0


if __name__ == "__main__":
    end(main())
