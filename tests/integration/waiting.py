"""Waiting for other processes, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 90) -> T:
    """What the condition gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(0.05)
    return found


def running(pid: int) -> bool:
    """A zombie is not: nobody may be there to wait for it."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def started(folder: Path) -> set[int]:
    """The processes that have called :func:`tests.integration.matrix_models.patient`."""
    return {int(path.name.partition("-")[2]) for path in folder.glob("started-*")}
