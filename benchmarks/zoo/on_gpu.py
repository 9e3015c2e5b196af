"""Runs kept artifacts of the zoo on this machine's GPU, against their golden I/O: launched, and as a CUDA graph.

    python -m benchmarks.zoo.on_gpu FOLDER OUT.json [PATTERN]
    python -m benchmarks.zoo.on_gpu --without-torch FOLDER OUT.json [PATTERN]   # windows_side.Session; no CUDA graphs

Each artifact is run in a process of its own, so that one that crashes is a row, not the end. Rows are written as they
come, and those that are there are not run again. ``--into-table OUT.json`` takes them into ``docs/build/zoo.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
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
    if arguments[0] in ("--one", "--session"):
        run = _loaded if arguments[0] == "--one" else _in_session
        try:
            result = run(_for_this_host(Path(arguments[1])))
        except Exception as error:  # noqa: BLE001 - what it raised is the row
            traceback.print_exc()
            result = {"gpu": "", "right": False, "failed": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(result))
        return 0
    mode = "--one"
    if arguments[0] == "--without-torch":
        mode, arguments = "--session", arguments[1:]
    folder, out = Path(arguments[0]), Path(arguments[1])
    pattern = arguments[2] if len(arguments) > 2 else "*"
    records = read_records(out)
    for path in sorted(folder.glob("*.pt2")):
        if path.stem in records or not fnmatch(path.stem, pattern):
            continue
        records[path.stem] = {"name": path.stem, "date": today(), **_in_a_process(mode, path)}
        write_records(out, records)
        print(json.dumps(records[path.stem]), flush=True)
    return 0


def _in_a_process(mode: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.zoo.on_gpu", mode, str(path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"gpu": "", "right": False, "failed": f"took over {SECONDS} s"}
    if ended.returncode:
        last = next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "")
        return {"gpu": "", "right": False, "failed": f"ended with {ended.returncode}: {last}"[:300]}
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


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


def _loaded(path: Path) -> dict[str, Any]:
    import torch

    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    with open_artifact(path) as artifact:
        began = time.monotonic()
        errors = compare_golden(artifact, load(path, allow_unlisted_gpu=True))
        seconds = time.monotonic() - began
        model = load(path, allow_unlisted_gpu=True, cuda_graphs=True)
        for _ in range(_REPLAYS):  # the first captures, the next replay
            graphs = compare_golden(artifact, model)
    graph_error = max(error.relative_l2 for error in graphs)
    return _described(torch.cuda.get_device_name(), [*errors, *graphs], seconds) | {
        "error": max(error.relative_l2 for error in errors), "graph_error": graph_error, "runtime": "torch",
    }  # fmt: skip


def _in_session(path: Path) -> dict[str, Any]:
    from toolchain import open_artifact
    from toolchain.host.gpu_probe import probe_gpus
    from windows_side import Session
    from windows_side.verification.session_golden import compare_session

    with open_artifact(path) as artifact:
        began = time.monotonic()
        with Session(path, allow_unlisted_gpu=True) as session:
            errors = compare_session(artifact, session)
    name = probe_gpus().gpus[0].name
    error = max(error.relative_l2 for error in errors)
    return _described(name, errors, time.monotonic() - began) | {"error": error, "runtime": "tensorrt"}


def _described(gpu: str, errors: list[Any], seconds: float) -> dict[str, Any]:
    return {
        "gpu": gpu,
        "seconds": round(seconds, 1),
        "right": all(error.within for error in errors),
        "outputs": [
            [error.name, error.sample, error.relative_l2, error.max_relative, error.within] for error in errors
        ],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
