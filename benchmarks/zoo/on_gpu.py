"""Runs kept artifacts of the zoo on this machine's GPU, against their golden I/O: launched, and as a CUDA graph.

    python -m benchmarks.zoo.on_gpu FOLDER OUT.json [PATTERN]

Each artifact is run in a process of its own, so that one that crashes is a row, not the end. Rows are written as they
come, and those that are there are not run again. ``--into-table OUT.json`` takes them into ``docs/zoo.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.zoo.table import GPU, read_records, today, write_records

SECONDS = 180
_REPLAYS = 3


def main(arguments: list[str]) -> int:
    if arguments[0] == "--into-table":
        taken = read_records(GPU) | read_records(Path(arguments[1]))
        write_records(GPU, taken)
        return 0
    if arguments[0] == "--one":
        print(json.dumps(_one(Path(arguments[1]))))
        return 0
    folder, out = Path(arguments[0]), Path(arguments[1])
    pattern = arguments[2] if len(arguments) > 2 else "*"
    records = read_records(out)
    for path in sorted(folder.glob("*.pt2")):
        if path.stem in records or not fnmatch(path.stem, pattern):
            continue
        records[path.stem] = {"name": path.stem, "date": today(), **_in_a_process(path)}
        write_records(out, records)
        print(json.dumps(records[path.stem]), flush=True)
    return 0


def _in_a_process(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.zoo.on_gpu", "--one", str(path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"gpu": "", "right": False, "failed": f"took over {SECONDS} s"}
    if ended.returncode:
        last = next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "")
        return {"gpu": "", "right": False, "failed": f"ended with {ended.returncode}: {last}"[:300]}
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def _one(path: Path) -> dict[str, Any]:
    import torch

    from tests.gpu.conftest import for_this_host
    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    own = for_this_host(path)
    with open_artifact(own) as artifact:
        began = time.monotonic()
        errors = compare_golden(artifact, load(own, allow_unlisted_gpu=True))
        found |= {"error": max(error.relative_l2 for error in errors), "seconds": round(time.monotonic() - began, 1)}
        found["outputs"] = [
            [error.name, error.sample, error.relative_l2, error.max_relative, error.within] for error in errors
        ]
        model = load(own, allow_unlisted_gpu=True, cuda_graphs=True)
        for _ in range(_REPLAYS):  # the first captures, the next replay
            graphs = compare_golden(artifact, model)
        found["graph_error"] = max(error.relative_l2 for error in graphs)
        found["right"] = all(error.within for error in [*errors, *graphs])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
