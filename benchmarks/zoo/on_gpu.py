"""Runs kept artifacts of the zoo on this machine's GPU, and compares them with their golden I/O.

    python -m benchmarks.zoo.on_gpu FOLDER OUT.jsonl [--jobs 6] [--seconds 300] [--only PATTERN]
    python -m benchmarks.zoo.on_gpu FOLDER OUT.jsonl --without-torch     # windows_side.Session; no CUDA graphs

Each artifact is run without CUDA graphs and as one, in a process of its own, so that a crash is only that row's result.
Where the row's package is installed, eager PyTorch of the same precision runs on the same samples. Rows are written as
they end, and rows that are in the file are not run again. ``--into-table OUT.jsonl`` puts them into the results that
``docs/build/zoo.md`` shows.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.zoo.processes import Found
from benchmarks.zoo.recording import add_options, into_table, print_steps, record, said
from benchmarks.zoo.table import GPU

_REPLAYS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.on_gpu", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of the artifacts")
    add_options(parser, jobs=6, each=150, seconds=3600)
    parser.add_argument("--without-torch", action="store_true", help="through windows_side.Session")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.into_table:
        into_table(asked, GPU)
    elif asked.one:
        print_steps((_in_session if asked.without_torch else _loaded)(asked.one))
    else:
        paths = sorted(asked.folder.glob("*.pt2"), key=lambda path: path.stat().st_size)
        wanted = [path for path in paths if any(fnmatch(path.stem, pattern) for pattern in asked.only.split(","))]
        mode = ["--without-torch"] if asked.without_torch else []
        command = [sys.executable, "-m", "benchmarks.zoo.on_gpu", *mode, "--one"]
        record(asked, {path.stem: [*command, str(path)] for path in wanted}, {"gpu": "", "right": False})
    return 0


def _for_this_host(path: Path) -> Path:
    """Converts the artifact to Linux; the engines are the same."""
    from toolchain import open_artifact
    from toolchain.convert import convert_artifact
    from toolchain.targets import Platform

    own = path.parent / "linux" / path.name
    own.parent.mkdir(exist_ok=True)
    with open_artifact(path) as artifact:
        convert_artifact(artifact, own, Platform.LINUX_X86_64)
    return own


def _loaded(kept: Path) -> Iterator[Found]:
    import torch

    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    path = _for_this_host(kept)
    with open_artifact(path) as artifact:
        began = time.monotonic()
        errors = compare_golden(artifact, load(path, allow_unlisted_gpu=True))
        found = _described(torch.cuda.get_device_name(), errors) | {
            "runtime": "torch", "run_seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        yield found | {"right": False}  # right only if it is right as a CUDA graph too
        model = load(path, allow_unlisted_gpu=True, cuda_graphs=True)
        for _ in range(_REPLAYS):  # the first captures, the next replay
            graphs = compare_golden(artifact, model)
        yield {
            "graph_error": max((error.relative_l2 for error in graphs), default=0.0),
            "right": found["right"] and all(error.within for error in graphs),
        }
        yield _in_eager(artifact)


def _in_eager(artifact: Any) -> Found:
    """Runs the same samples in eager PyTorch, in the artifact's precision."""
    from benchmarks.zoo.eager import Eager
    from benchmarks.zoo.rows import zoo
    from windows_side.execution.samples import read_golden

    try:
        (row,) = zoo(artifact.path.stem)
        eager = Eager(row)
        errors = [eager.error(inputs, wanted) for inputs, wanted in read_golden(artifact)]
    except Exception as error:  # noqa: BLE001 - a package that is not installed, or a model that cannot run in halves
        traceback.print_exc()
        return {"eager_failed": said(error)}
    return {"eager_errors": errors, "eager_error": max(errors)}


def _in_session(kept: Path) -> Iterator[Found]:
    from toolchain import open_artifact
    from toolchain.host.gpu_probe import probe_gpus
    from windows_side import Session
    from windows_side.verification.session_golden import compare_session

    path = _for_this_host(kept)
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
