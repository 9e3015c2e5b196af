"""Measures the time and the peak memory of one call in a fresh process.

Peak memory is VmHWM minus VmRSS just before the call. The kernel's high-water mark is reset right before, so that
imports do not count. Anonymous memory, which has no such mark, is sampled from outside.

With ``BENCHMARK_PRIORITY=1`` the call runs with real-time priority (as root), so that other load on the machine is not
measured.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PRIORITY = os.environ.get("BENCHMARK_PRIORITY") == "1"
_SAMPLE_SECONDS = 0.005


@dataclass(frozen=True)
class Measured:
    """The cost of one call.

    Attributes:
        seconds: wall time.
        cpu: CPU seconds of all threads together, which other load on the machine changes less.
        peak: bytes of resident memory above the start.
        anonymous: the anonymous part of these bytes, as sampled.
        result: the job's description of its result.
    """

    seconds: float
    cpu: float
    peak: int
    anonymous: int
    result: Any = None


def measure(job: str, *arguments: object) -> Measured:
    """Runs ``module:function`` in a fresh process.

    The function prepares, and returns the call to measure and a function that describes its result as JSON.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.measure", job, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY, text=True
    ) as child:
        assert child.stdin and child.stdout and child.stderr
        ready = child.stdout.readline()
        start = memory(child.pid)["RssAnon"] if ready else 0
        anonymous = start
        if ready:
            child.stdin.write("go\n")
            child.stdin.flush()
            while not select.select([child.stdout], [], [], _SAMPLE_SECONDS)[0]:
                anonymous = max(anonymous, memory(child.pid).get("RssAnon", 0))
        output, errors = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{job} {arguments} failed:\n{errors[-2000:]}")
    return Measured(**{**json.loads(output), "anonymous": anonymous - start})


def memory(pid: int | str) -> dict[str, int]:
    """Returns the memory lines of ``/proc/PID/status``, in bytes."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def prefer_this_process() -> None:
    """Gives this process real-time priority, if ``BENCHMARK_PRIORITY`` asks for it."""
    if PRIORITY:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _child(job: str, arguments: list[str]) -> None:
    module, _, name = job.partition(":")
    prepare: Callable[..., tuple[Callable[[], Any], Callable[[Any], Any]]] = getattr(
        importlib.import_module(module), name
    )
    call, describe = prepare(*arguments)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to the resident memory
    before = memory("self")["VmRSS"]
    print("ready", flush=True)
    sys.stdin.readline()
    prefer_this_process()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    peak = memory("self")["VmHWM"] - before
    print(json.dumps(asdict(Measured(seconds, cpu, peak, 0, describe(result)))))


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2:])
