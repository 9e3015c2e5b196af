"""Measures a first and a second build of the same model, and the import of torch to compare with.

    python -m benchmarks.cache --repeat 5

Each command is a process of its own, and each first build has an empty cache. The run with the median wall time is
reported, with its CPU time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.measure import REPOSITORY

FACTORY = "examples.models:resnet18"
_EXPORT = """
import sys, torch
from examples.models import resnet18
model, args = resnet18()
torch.export.save(torch.export.export(model, args), sys.argv[1])
"""
# The imports of any program that exports.
_IMPORTS = "import torch, torch.export, torch._dynamo"
_MODEL = f"{_IMPORTS}; from examples.models import resnet18; resnet18()"


@dataclass(frozen=True, order=True)
class Run:
    """Wall and CPU seconds of one process and its children."""

    wall: float
    cpu: float


def run(*command: str, cache: Path) -> Run:
    before = _cpu()
    start = time.perf_counter()
    environment = {**os.environ, "TRTCROSS_CACHE": str(cache), "TRTCROSS_CACHE_SIZE": "20GiB"}
    subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    return Run(time.perf_counter() - start, _cpu() - before)


def measure(repeat: int, folder: Path) -> dict[str, Run]:
    """Returns the median run of each command, by the row's name."""
    program = folder / "resnet18.pt2"
    run("-c", _EXPORT, str(program), cache=folder)
    runs: dict[str, list[Run]] = {}
    for number in range(repeat):
        runs.setdefault("`import torch`", []).append(run("-c", "import torch", cache=folder))
        runs.setdefault("importing what torch.export needs", []).append(run("-c", _IMPORTS, cache=folder))
        runs.setdefault("the same, and making the model", []).append(run("-c", _MODEL, cache=folder))
        for name, model in (("`.pt2`", str(program)), ("factory", FACTORY)):
            cache = folder / f"cache-{name.strip('`.')}-{number}"
            for which in ("first", "second"):
                arguments = ["build", model, "-o", str(folder / "out.pt2")]
                done = run("-m", "toolchain", *arguments, cache=cache)
                runs.setdefault(f"{name}, {which} build", []).append(done)
    return {name: sorted(found)[len(found) // 2] for name, found in runs.items()}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        medians = measure(options.repeat, Path(folder))
    print(*(f"- {line}" for line in describe_machine()), f"- load average {os.getloadavg()[0]:.1f}", "", sep="\n")
    print("| ResNet-18 | seconds | of the processor |", "|---|---|---|", sep="\n")
    for name, median in medians.items():
        print(f"| {name} | {median.wall:.2f} | {median.cpu:.2f} |")


if __name__ == "__main__":
    main()
