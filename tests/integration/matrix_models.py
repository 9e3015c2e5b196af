"""Models for matrices in tests: one that waits until it is told to go on, so that a build can be caught at work, and
one that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from tests.models import tiny


def patient() -> Any:
    """Says in ``$PATIENT/started-PID`` that it is there, and goes on when ``$PATIENT/go`` is."""
    folder = Path(os.environ["PATIENT"])
    (folder / f"started-{os.getpid()}").touch()
    end = time.monotonic() + 120
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return tiny()


def killed() -> Any:
    """As by a kernel that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def speaks_of_kills() -> Any:
    raise RuntimeError("SIGKILL, signal 9: but nobody was killed")


def counted() -> Any:
    """Says in ``$COUNTED`` that it was called."""
    with Path(os.environ["COUNTED"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return tiny()


def threaded() -> Any:
    """Leaves a thread behind, as a library for logging may."""
    threading.Thread(target=time.sleep, args=(300,), daemon=True, name="left behind").start()
    return tiny()
