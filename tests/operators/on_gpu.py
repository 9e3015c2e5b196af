"""Builds artifacts of the operators here, and runs them on a GPU host."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from tests.operators.catalogue import ALL

PROCESSES = int(os.environ.get("TRTCROSS_PROCESSES", "8"))
INDEX = "operators.json"


def build(folder: Path, count: int) -> None:
    """Builds ``count`` artifacts of each operator, each with a golden sample of eager PyTorch."""
    from tests.integration.harness import build_here
    from tests.operators.runner import Operator, trials
    from toolchain.targets import Platform

    folder.mkdir(parents=True, exist_ok=True)
    index: list[Any] = []
    options = {"golden": 1, "target": Platform.LINUX_X86_64, "gpus": ["sm_80"]}
    for name, make in ALL.items():
        for number, trial in enumerate(trials(make, count)):
            ranges = [f"x_{at}.{dim}=2:4:8" for at, dim in enumerate(trial.dynamic) if dim is not None]
            try:
                built = build_here(
                    Operator(trial.function).eval(), trial.calls[0], folder=folder, dynamic=tuple(ranges), **options
                )
            except Exception as error:  # noqa: BLE001 - one operator's failure must not stop the others
                print("NOT BUILT", name, trial.text, str(error).splitlines()[0][:200], flush=True)
                continue
            file = f"{len(index):04}.pt2"
            built.artifact.path.replace(folder / file)
            built.artifact.path.parent.rmdir()
            index.append({"operator": name, "trial": f"{number}: {trial.text}", "file": file})
            (folder / INDEX).write_text(json.dumps(index, indent=1), "utf-8")


def run_one(job: dict[str, str]) -> dict[str, Any]:
    """Loads and runs one artifact."""
    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    try:
        with open_artifact(job["path"]) as artifact:
            errors = compare_golden(artifact, load(artifact, allow_unlisted_gpu=True, runtime_cache=False))
    except Exception as error:  # noqa: BLE001 - as above
        return {**job, "error": str(error)[:300]}
    worst = max((error.relative_l2 for error in errors), default=0.0)
    return {
        **job,
        "within": all(error.within for error in errors),
        "relative_l2": worst if math.isfinite(worst) else None,
    }


def run(folder: Path, out: Path) -> int:
    """Runs every artifact of a folder; returns how many are wrong or do not run."""
    jobs = json.loads((folder / INDEX).read_text("utf-8"))
    jobs = [{**job, "path": str(folder / job["file"])} for job in jobs]
    rows = []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for row in pool.map(run_one, jobs):
            row.pop("path")
            rows.append(row)
            if len(rows) % 20 == 0 or len(rows) == len(jobs):
                out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1), "utf-8")
    wrong = [row for row in rows if not row.get("within")]
    for row in wrong:
        print(row)
    print(f"{len(rows)} artifacts, {len(wrong)} wrong")
    return len(wrong)
