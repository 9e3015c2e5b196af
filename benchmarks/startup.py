"""Measures what starting costs: ``python -m benchmarks.startup ARTIFACT``. Needs neither torch nor a GPU.

A figure is the least CPU time (user and system) of several fresh processes, which other load on the machine changes
least. Byte code is kept, as it is for an installed package, in a folder of its own. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.measure import REPOSITORY

REPEAT = 15
OPEN = "from toolchain import open_artifact; open_artifact(r'{artifact}')"
RUNTIME = "import numpy, cuda.bindings.runtime"
# Name, Python's arguments, the row whose time is subtracted, and the goal in seconds.
CASES: list[tuple[str, list[str], str | None, float | None]] = [
    ("`python -c pass`", ["-c", "pass"], None, None),
    ("`import pydantic` and its `BaseModel`", ["-c", "from pydantic import BaseModel"], None, None),
    ("`trtcross --help`", ["-m", "toolchain", "--help"], None, 0.15),
    ("`trtcross inspect`", ["-m", "toolchain", "inspect", "{artifact}"], None, 0.2),
    ("`open_artifact`, beside Python itself", ["-c", OPEN], "`python -c pass`", 0.1),
    ("numpy and CUDA's bindings", ["-c", RUNTIME], None, None),
    (
        "a session up to the GPU, beside those",
        ["-c", f"{RUNTIME}; import windows_side.session.running; {OPEN}"],
        "numpy and CUDA's bindings",
        0.1,
    ),
]


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Returns the least CPU seconds of a fresh Python."""
    found = []
    for _ in range(REPEAT + 1):  # the first run writes byte code
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments], cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    artifact = str(parser.parse_args().artifact.resolve())
    taken: dict[str, float] = {}
    print("\n".join(f"- {line}" for line in describe_machine()))
    print("\n| what | processor seconds | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": str(REPOSITORY)}
        for name, arguments, floor, goal in CASES:
            whole = seconds([argument.replace("{artifact}", artifact) for argument in arguments], environment)
            taken[name] = whole - (taken[floor] if floor else 0)
            print(f"| {name} | {taken[name]:.3f} | {'' if goal is None else f'under {goal}'} |")
    return 0 if all(goal is None or taken[name] < goal for name, _, _, goal in CASES) else 1


if __name__ == "__main__":
    sys.exit(main())
