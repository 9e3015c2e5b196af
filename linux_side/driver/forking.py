"""Whether this process can be forked: a child has one thread, and what another held or was about to do is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from pathlib import Path

_OPENMP = re.compile(r"/lib(g|i)?omp[^/]*\.so")
_PAUSE_HARD = 2  # omp_pause_hard
_GPU = "/dev/nvidia"


def begin_few_threads() -> None:
    """Tells a library that ends no threads of its own to begin none: Hugging Face's tokenizers, by their variable."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def why_not_forked() -> str | None:
    """Ends the threads that libraries keep for their next call, and names what else is there; None where nothing is.

    OpenMP's are ended by its own call (``omp_pause_resource_all``), and come again at need, in a child too; so does the
    one with which tqdm looks after its bars. OpenBLAS ends its own at any fork: there is one for that alone.
    """
    for thread in threading.enumerate():
        if type(thread).__module__ == "tqdm._monitor":
            thread.exit()  # type: ignore[attr-defined]
    for library in _mapped(_OPENMP):
        if pause := getattr(ctypes.CDLL(library), "omp_pause_resource_all", None):
            pause(_PAUSE_HARD)
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
    """The libraries of this process with such names."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {path for line in lines if pattern.search(path := line.partition("/")[1] + line.partition("/")[2])}


def _open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # of the listing itself
            found.append(str(descriptor.readlink()))
    return found


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:
        return "one that has just ended"
