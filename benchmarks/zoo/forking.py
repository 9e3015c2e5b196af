"""Runs each job in a fork of this process, which has imported everything already.

A fork has only the forking thread, and locks that other threads held stay locked in it, so there must be no others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")
_POLL = 0.1


@dataclass
class _Child:
    number: int
    out: Path
    deadline: float


def warm_up() -> None:
    """Imports what builds need and what imports slowly.

    Raises:
        RuntimeError: an import started a thread.
    """
    import torch

    torch.set_num_threads(1)
    from tests.integration.harness import imported_builder

    imported_builder()
    import diffusers  # noqa: F401
    import spandrel  # noqa: F401
    import timm  # noqa: F401
    import torchvision  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    require_one_thread()


def require_one_thread() -> None:
    """Checks that this process has one thread.

    Raises:
        RuntimeError: it has several.
    """
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(names) != 1:
        raise RuntimeError(
            f"this process must fork and has {len(names)} threads ({', '.join(names)}): set OPENBLAS_NUM_THREADS=1, "
            "and run on a machine without a GPU, whose driver starts threads too"
        )


def in_forks(
    work: Callable[[Job], dict[str, Any]],
    jobs: Sequence[Job],
    *,
    logs: Sequence[Path],
    folder: Path,
    count: int,
    seconds: float,
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yields each job with its result, as they end; one that crashes or takes too long has the state ``refused``.

    Args:
        work: runs a job in its fork, and returns its result as JSON.
        logs: the files for the output of each job.
        folder: the folder through which the forks pass their results.
        count: the number of jobs that run at a time.
        seconds: the time limit of a job.
    """
    waiting = list(range(len(jobs)))
    children: dict[int, _Child] = {}
    try:
        while waiting or children:
            while waiting and len(children) < count:
                number = waiting.pop(0)
                out = folder / f"{os.getpid()}-{number}.json"
                children[_fork(lambda n=number: work(jobs[n]), out, logs[number])] = _Child(
                    number, out, time.monotonic() + seconds
                )
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                for late in [pid for pid, child in children.items() if time.monotonic() > child.deadline]:
                    os.kill(late, signal.SIGKILL)
                time.sleep(_POLL)
                continue
            child = children.pop(pid)
            yield jobs[child.number], _result(child, status, seconds)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _result(child: _Child, status: int, seconds: float) -> dict[str, Any]:
    if child.out.exists():
        result: dict[str, Any] = json.loads(child.out.read_text())
        child.out.unlink()
        return result
    late = time.monotonic() > child.deadline
    why = f"took over {seconds:.0f} s" if late else f"the process ended with {os.waitstatus_to_exitcode(status)}"
    return {"state": "refused", "reason": why}


def _fork(work: Callable[[], dict[str, Any]], out: Path, log: Path) -> int:
    require_one_thread()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        result = work()
        part = out.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(out)
        code = 0
    except BaseException:  # noqa: BLE001 - the child must never return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
