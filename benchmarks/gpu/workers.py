"""Runs threads that call models for a given time, and reports their results and the memory meanwhile."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.measure import memory
from toolchain import open_artifact
from windows_side import LoadedModel
from windows_side.execution.samples import sample_call

_SAMPLE_SECONDS = 2
# The largest relative L2 difference between two kernels of one engine.
_TOLERANCE = 2e-3
# How long a call may take after the end.
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """The arguments of a call."""

    args: Any
    kwargs: Any

    def of(self, model: LoadedModel) -> list[torch.Tensor]:
        """Calls a model, and returns its outputs, flat."""
        outputs: list[torch.Tensor] = pytree.tree_leaves(model(*self.args, **self.kwargs))
        return outputs


def call_for(artifact: Path, device: torch.device) -> Call:
    """Returns a call with the artifact's golden inputs, or with random ones of the least sizes."""
    with open_artifact(artifact) as opened:
        return Call(*sample_call(opened, device))


class Worker(threading.Thread):
    """Takes results from an iterator, which computes them in this thread, and compares each with the right one.

    Attributes:
        until: when the thread stops, as ``time.monotonic`` counts.
        calls: the number of results.
        worst: the largest relative L2 error; infinite where a result was NaN, or of a wrong shape or dtype.
        error: the error that ended the thread early, or None.
    """

    def __init__(
        self, artifact: str, device: torch.device, results: Iterator[list[torch.Tensor]], want: list[torch.Tensor],
        **about: Any,
    ) -> None:  # fmt: skip
        super().__init__(name=artifact, daemon=True)  # a thread that hangs must not keep the process alive
        self._about = {"artifact": artifact, "device": str(device), **about}
        self._results, self._want = results, want
        self.until = 0.0
        self.calls, self.worst = 0, 0.0
        self.error: str | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.worst = max(self.worst, _difference(next(self._results), self._want))
                self.calls += 1
        except Exception as error:  # noqa: BLE001 - the run reports it
            self.error = f"{type(error).__name__}: {error}"[:500]

    @property
    def failed(self) -> bool:
        return self.is_alive() or self.error is not None or self.worst > _TOLERANCE

    def summary(self) -> dict[str, Any]:
        return {**self._about, "calls": self.calls, "worst": self.worst, "error": self.error}


def _difference(got: list[torch.Tensor], want: list[torch.Tensor]) -> float:
    return max(_relative_l2(a, b) for a, b in zip(got, want, strict=True))


def _relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    if torch.equal(a, b):
        return 0.0
    error = ((a.double() - b.double()).norm() / b.double().norm()).item()
    return math.inf if math.isnan(error) else error


def run_for(seconds: float, workers: Sequence[Worker], out: Path) -> None:
    """Runs all workers at once. Results are written meanwhile, because a long run may be interrupted.

    Raises:
        SystemExit: a result was wrong, or a worker ended with an error or did not end.
    """
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.synchronize(gpu)
    start = time.monotonic()
    for worker in workers:
        worker.until = start + seconds
        worker.start()
    samples: list[dict[str, Any]] = []
    while any(worker.is_alive() for worker in workers) and time.monotonic() < start + seconds + _GRACE_SECONDS:
        samples.append(_sample(time.monotonic() - start))
        _write(out, workers, samples)
        time.sleep(_SAMPLE_SECONDS)
    _write(out, workers, samples)
    for worker in workers:
        print(json.dumps(worker.summary()))
    print("first, middle, last:", samples[0], samples[len(samples) // 2], samples[-1])
    if failed := [worker.name for worker in workers if worker.failed]:
        raise SystemExit(f"wrong, or not done: {', '.join(failed)}")


def _sample(seconds: float) -> dict[str, Any]:
    """Returns the bytes of the process's memory, and of the free memory of each GPU."""
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]
    return {"seconds": round(seconds, 1), "host": memory("self")["VmRSS"], "free": free}


def _write(out: Path, workers: Sequence[Worker], samples: list[dict[str, Any]]) -> None:
    gpus = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    document = {"gpus": gpus, "workers": [worker.summary() for worker in workers], "memory": samples}
    part = out.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1))
    part.replace(out)
