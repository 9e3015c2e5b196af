"""Runs kept artifacts of the zoo on this machine's GPU, against their golden I/O: launched, and as a CUDA graph.

    python -m benchmarks.zoo.on_gpu FOLDER OUT.jsonl [--jobs 6] [--seconds 300] [--only PATTERN]
    python -m benchmarks.zoo.on_gpu FOLDER OUT.jsonl --without-torch     # windows_side.Session; no CUDA graphs

Where the row's package is there, eager PyTorch of the same precision runs on the same samples. Each artifact is run in
a process of its own, so that one that crashes is a row, not the end. Rows are written as they come, and those that are
there are not run again. ``--into-table OUT.jsonl`` takes them into ``docs/build/zoo.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.zoo.processes import in_processes
from benchmarks.zoo.table import GPU, read_lines, read_records, today, write_records

_REPLAYS = 3

Found = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.on_gpu", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of the artifacts")
    parser.add_argument("out", type=Path, nargs="?", help="a line of JSON for each")
    parser.add_argument("--only", default="*", help="names, as a pattern")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--each", type=float, default=150, help="seconds for one")
    parser.add_argument("--seconds", type=float, default=3600, help="in all")
    parser.add_argument("--without-torch", action="store_true", help="through windows_side.Session")
    parser.add_argument("--into-table", type=Path, nargs="+", help="files of results")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.into_table:
        taken = {name: found for path in asked.into_table for name, found in read_lines(path).items()}
        write_records(GPU, read_records(GPU) | taken)
        return 0
    if asked.one:
        return _one(asked.one, asked.without_torch)
    there = read_lines(asked.out)
    paths = sorted(asked.folder.glob("*.pt2"), key=lambda path: path.stat().st_size)
    wanted = [path for path in paths if path.stem not in there and fnmatch(path.stem, asked.only)]
    mode = ["--without-torch"] if asked.without_torch else []
    commands = {
        path.stem: [sys.executable, "-m", "benchmarks.zoo.on_gpu", *mode, "--one", str(path)] for path in wanted
    }
    logs = asked.out.with_suffix(".logs")
    for name, found in in_processes(commands, logs, count=asked.jobs, each=asked.each, seconds=asked.seconds):
        record = {"name": name, "date": today(), "gpu": "", "right": False, **found}
        with asked.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps({key: value for key, value in record.items() if key != "outputs"}), flush=True)
    return 0


def _one(path: Path, without_torch: bool) -> int:
    """Prints what is known of an artifact after each step, for the case that the next one crashes."""
    found: Found = {}
    try:
        for more in (_in_session if without_torch else _loaded)(_for_this_host(path)):
            found |= more
            print(json.dumps(found), flush=True)
    except Exception as error:  # noqa: BLE001 - what it raised is the row
        traceback.print_exc()
        print(json.dumps(found | {"right": False, "failed": f"{type(error).__name__}: {error}"[:300]}), flush=True)
    return 0


def _for_this_host(path: Path) -> Path:
    """The artifact for Linux: the same engines."""
    from toolchain import open_artifact
    from toolchain.convert import convert_artifact
    from toolchain.targets import Platform

    own = path.parent / "linux" / path.name
    own.parent.mkdir(exist_ok=True)
    with open_artifact(path) as artifact:
        convert_artifact(artifact, own, Platform.LINUX_X86_64)
    return own


def _loaded(path: Path) -> Iterator[Found]:
    import torch

    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    with open_artifact(path) as artifact:
        began = time.monotonic()
        errors = compare_golden(artifact, load(path, allow_unlisted_gpu=True))
        found = _described(torch.cuda.get_device_name(), errors) | {
            "runtime": "torch", "run_seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        yield found
        model = load(path, allow_unlisted_gpu=True, cuda_graphs=True)
        for _ in range(_REPLAYS):  # the first captures, the next replay
            graphs = compare_golden(artifact, model)
        yield {
            "graph_error": max((error.relative_l2 for error in graphs), default=0.0),
            "right": found["right"] and all(error.within for error in graphs),
        }
        yield _in_eager(artifact)


def _in_eager(artifact: Any) -> Found:
    """What eager PyTorch makes of the same samples, in the artifact's precision."""
    from benchmarks.zoo.eager import Eager
    from benchmarks.zoo.rows import zoo
    from windows_side.execution.samples import read_golden

    try:
        (row,) = zoo(artifact.path.stem)
        eager = Eager(row)
        errors = [eager.error(inputs, wanted) for inputs, wanted in read_golden(artifact)]
    except Exception as error:  # noqa: BLE001 - a package that is not there, or a model that no GPU runs in halves
        traceback.print_exc()
        return {"eager_failed": f"{type(error).__name__}: {error}"[:300]}
    return {"eager_errors": errors, "eager_error": max(errors)}


def _in_session(path: Path) -> Iterator[Found]:
    from toolchain import open_artifact
    from toolchain.host.gpu_probe import probe_gpus
    from windows_side import Session
    from windows_side.verification.session_golden import compare_session

    with open_artifact(path) as artifact:
        began = time.monotonic()
        with Session(path, allow_unlisted_gpu=True) as session:
            errors = compare_session(artifact, session)
    seconds = round(time.monotonic() - began, 1)
    yield _described(probe_gpus().gpus[0].name, errors) | {"runtime": "tensorrt", "run_seconds": seconds}


def _described(gpu: str, errors: list[Any]) -> Found:
    return {
        "gpu": gpu,
        "right": all(error.within for error in errors),
        "error": max((error.relative_l2 for error in errors), default=0.0),
        "outputs": [
            [error.name, error.sample, error.relative_l2, error.max_relative, error.within, error.added]
            for error in errors
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
