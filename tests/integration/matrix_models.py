"""Models for tests of matrices, such as one that waits until the test lets it continue, and one that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from tests.models import tiny


def patient() -> Any:
    """Writes ``$PATIENT/started-PID``, and waits until ``$PATIENT/go`` exists."""
    folder = Path(os.environ["PATIENT"])
    (folder / f"started-{os.getpid()}").touch()
    end = time.monotonic() + 120
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return tiny()


def killed() -> Any:
    """Kills its own process, as a kernel without memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def speaks_of_kills() -> Any:
    raise RuntimeError("SIGKILL, signal 9: but nobody was killed")


def counted() -> Any:
    """Records in ``$COUNTED`` that it was called."""
    with Path(os.environ["COUNTED"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return tiny()


def threaded() -> Any:
    """Leaves a thread running, as a library for logging may."""
    threading.Thread(target=time.sleep, args=(300,), daemon=True, name="left behind").start()
    return tiny()
