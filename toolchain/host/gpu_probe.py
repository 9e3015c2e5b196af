"""Probes this machine's GPUs in a child process, so that a driver that crashes ends only that process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock, Thread

from toolchain.targets import ComputeCapability

TIMEOUT = 10.0
_PROBING = Lock()

# Nothing is imported from the current folder: it may hold downloads, with a pynvml.py among them.
_PROGRAM = "import sys; sys.path[:] = filter(None, sys.path); from toolchain.host.nvml import main; main()"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine; memory in bytes."""

    index: int
    name: str
    capability: ComputeCapability
    free_memory: int
    total_memory: int


@dataclass(frozen=True)
class Gpus:
    """The GPUs and the driver that the probe found, or why it found none.

    Attributes:
        driver: the version of NVIDIA's driver, or None.
        gpus: the GPUs.
        problem: why no GPUs are listed, or None.
        known: False if the probe could not find out whether there is a GPU.
    """

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    known: bool = True


def probe_gpus() -> Gpus:
    """Runs the probe, once in a process; if :func:`probe_ahead` has begun one, waits for it."""
    with _PROBING:
        return _probed()


def probe_ahead() -> None:
    """Begins the probe on a thread, while the caller does something else."""
    Thread(target=probe_gpus, name="trtcross-probe", daemon=True).start()


@lru_cache(maxsize=1)
def _probed() -> Gpus:
    try:
        command = [sys.executable, "-c", _PROGRAM]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
        document = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        return Gpus(problem=f"the driver did not answer within {TIMEOUT:.0f} s", known=False)
    except ValueError:
        return Gpus(problem=f"asking the driver crashed (exit code {result.returncode})", known=False)
    gpus = tuple(
        Gpu(gpu["index"], gpu["name"], ComputeCapability(*gpu["capability"]), gpu["free"], gpu["total"])
        for gpu in document["gpus"]
    )
    return Gpus(document["driver"], gpus, document["problem"], document["known"])


if __name__ == "__main__":
    from toolchain.host.nvml import main

    main()
