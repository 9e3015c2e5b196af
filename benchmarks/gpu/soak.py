"""Calls several models by threads on all GPUs for a given time, and checks results and memory.

python -m benchmarks.gpu.soak SECONDS OUT.json ARTIFACT ...
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.latency import for_this_host
from benchmarks.gpu.workers import Call, Worker, call_for, run_for
from windows_side import LoadedModel, load

THREADS_PER_MODEL = 2
_CALLS_BEFORE = 20


def results_of(model: LoadedModel, call: Call) -> Iterator[list[torch.Tensor]]:
    """Yields the results of the same call again and again, on a stream of its own."""
    with torch.cuda.stream(torch.cuda.Stream(model.device)):
        while True:
            yield call.of(model)


def workers_for(path: Path, device: torch.device, cuda_graphs: bool) -> list[Worker]:
    """Makes threads that share one model."""
    model = load(path, device, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    call = call_for(path, device)
    for _ in range(_CALLS_BEFORE):  # so that the kernels for these shapes are compiled
        call.of(model)
    time.sleep(1)
    want = call.of(model)
    return [
        Worker(path.stem, device, results_of(model, call), want, cuda_graphs=cuda_graphs)
        for _ in range(THREADS_PER_MODEL)
    ]


def main(seconds: float, out: Path, paths: list[Path]) -> None:
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, path in enumerate(paths):
            device = torch.device("cuda", index % torch.cuda.device_count())
            workers += workers_for(for_this_host(path, Path(folder)), device, cuda_graphs=bool(index // 2 % 2))
    run_for(seconds, workers, out)


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
