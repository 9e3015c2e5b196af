"""Whether this process can be forked. A child has one thread: locks and work of the others would be lost in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from pathlib import Path

_OPENMP = re.compile(r"/lib(g|i)?omp[^/]*\.so")
_OMP_PAUSE_HARD = 2  # omp_pause_resource_t of omp.h
_GPU = "/dev/nvidia"


def begin_few_threads() -> None:
    """Keeps Hugging Face's tokenizers from starting threads, which the library never ends."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def fork_blocker() -> str | None:
    """Ends the idle threads of libraries, and returns what still prevents a fork, or None.

    OpenMP's threads are ended by ``omp_pause_resource_all``, and tqdm's monitor by its own method. Both restart when
    they are needed, in a child too. OpenBLAS ends its threads at any fork, so this function forks once for that alone.
    """
    for thread in threading.enumerate():
        if type(thread).__module__ == "tqdm._monitor":
            thread.exit()  # type: ignore[attr-defined]
    for library in _mapped(_OPENMP):
        if pause := getattr(ctypes.CDLL(library), "omp_pause_resource_all", None):
            pause(_OMP_PAUSE_HARD)
    sys.stdout.flush()
    sys.stderr.flush()
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    own = str(os.getpid())
    if threads := [task for task in Path("/proc/self/task").iterdir() if task.name != own]:
        return f"{len(threads)} more thread(s) of it are alive: {', '.join(sorted(set(map(_name, threads))))}"
    if any(target.startswith(_GPU) for target in _open_files()):
        return "it has opened a GPU, which a forked process cannot use"
    return None


def _mapped(pattern: re.Pattern[str]) -> set[str]:
    """Returns the paths of this process's mapped libraries whose names match."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {path for line in lines if pattern.search(path := line.partition("/")[1] + line.partition("/")[2])}


def _open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
            found.append(str(descriptor.readlink()))
    return found


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:
        return "one that has just ended"
