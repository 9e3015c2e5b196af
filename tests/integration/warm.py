"""Processes of ours that are forked of one with torch and Torch-TensorRT imported, which takes five seconds.

Nothing else differs from a new Python: each has its own environment, files and end. What tells of the start itself
takes a new one.
"""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, reduction
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from toolchain.io.events import events_to_parent
from toolchain.io.python_child import python_child

_CHILD = python_child("")[:-1]  # of a command for a module of ours
_FREE = 500  # descriptors from here on are nobody's
# How a process ended can be read once, and starting one reads it of those before: a thread that comes second gets 255.
_READING = threading.Lock()


def trtcross(*arguments: object, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Runs a command line to its end.

    Raises:
        subprocess.TimeoutExpired: it takes longer than these seconds.
    """
    command = python_child("toolchain", *map(str, arguments))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = WarmProcess(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


@contextmanager
def warm_builds() -> Iterator[None]:
    """``build`` and ``build_many`` of this process start warm ones."""
    _context()
    replaced = SimpleNamespace(**{**vars(subprocess), "Popen": WarmProcess})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolchain.io.events.subprocess", replaced)
        patch.setattr("linux_side.driver.forks.subprocess", replaced)
        yield


class WarmProcess:
    """What this project needs of ``subprocess.Popen``, for a module of ours."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: Any,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Collection[int] = (),
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        context = _context()
        self.command = command
        self.stdin = None
        read, write = os.pipe()
        files = {0: read, 1: 1 if stdout is None else stdout.fileno(), 2: 2 if stderr is None else stderr.fileno()}
        files |= {descriptor: descriptor for descriptor in pass_fds}
        passed = {number: _Descriptor(descriptor) for number, descriptor in files.items()}
        start = (str(cwd or Path.cwd()), dict(env or os.environ), os.getpid(), start_new_session)
        self._process = context.Process(target=_begin, args=(command[len(_CHILD) :], passed, *start))
        with _READING:
            self._process.start()
        os.close(read)
        if stdin == subprocess.PIPE:
            self.stdin = os.fdopen(write, "wb")
        else:
            os.close(write)  # nothing comes

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        with _READING:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(list(self.command), timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdin:
            self.stdin.close()
        self.wait()


def _context() -> ForkServerContext:
    """That forks of a process with everything imported, which is there from now on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.warm_imports"])
    forkserver.ensure_running()
    return context


class _Descriptor:
    """A file descriptor of this process, of which a child process gets a duplicate when it unpickles this."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _taken, (reduction.DupFd(self.number),)


def _taken(descriptor: Any) -> _Descriptor:
    return _Descriptor(descriptor.detach())


def _begin(
    words: list[str], files: Mapping[int, _Descriptor], cwd: str, env: Mapping[str, str], parent: int, session: bool
) -> None:
    """A warm process begins."""
    if session:
        os.setsid()
    os.chdir(cwd)
    # Whoever ends with its parent has another here, which ends with that.
    module, *arguments = [str(os.getppid()) if word == str(parent) else word for word in words]
    away = {number: fcntl.fcntl(file.number, fcntl.F_DUPFD, _FREE) for number, file in files.items()}
    _close_all_but(away.values())
    for number, descriptor in away.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    # A new Python has none chosen. With "forkserver", a lock of tqdm's would be registered with the resource tracker:
    # by a write to the number of a descriptor that is closed by now, or is another file's.
    multiprocessing.set_start_method(None, force=True)
    subprocess.Popen = _Forked  # type: ignore[assignment]
    _run_module(module, arguments, env)


class _Forked(subprocess.Popen[Any]):
    """Runs a module of ours in the process that ``Popen`` has forked, and lets no other program take its place."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Collection[int] = (),
        **options: Any,
    ) -> None:
        if list(command[: len(_CHILD)]) == _CHILD:
            module, *arguments = command[len(_CHILD) :]

            def run() -> None:
                _close_all_but([0, 1, 2, *pass_fds])
                _run_module(module, arguments, env or {})

            options["preexec_fn"] = run
        super().__init__(command, env=env, pass_fds=pass_fds, **options)


def _run_module(module: str, arguments: list[str], env: Mapping[str, str]) -> NoReturn:
    """What ``python_child`` does in a new Python."""
    code = 1
    try:
        gc.enable()
        os.environ.update(env)
        tempfile.tempdir = None
        events_to_parent.cache_clear()
        sys.stdin = os.fdopen(0, closefd=False)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the frames above this one are another program's
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def _close_all_but(kept: Collection[int]) -> None:
    for name in (path.name for path in Path("/proc/self/fd").iterdir()):
        if int(name) not in kept:
            with suppress(OSError):  # of the listing itself
                os.close(int(name))
