"""Waits for other processes, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 90) -> T:
    """Returns the condition's result as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(0.05)
    return found


def running(pid: int) -> bool:
    """Whether a process runs; a zombie, for which no process may wait, does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def started(folder: Path) -> set[int]:
    """Returns the processes that have called :func:`tests.integration.matrix_models.patient`."""
    return {int(path.name.partition("-")[2]) for path in folder.glob("started-*")}
