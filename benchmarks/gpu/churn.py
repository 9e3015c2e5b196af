"""Threads load, capture, call and drop models as fast as they can; crashes, wrong results and memory are reported.

On each GPU one thread loads the first artifact without CUDA graphs and without a kernel cache, and two threads load the
second one with CUDA graphs. docs/benchmarks/gpu.md, "Captures and threads", describes the results.

python -m benchmarks.gpu.churn SECONDS OUT.json LAUNCHED CAPTURED
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.latency import for_this_host
from benchmarks.gpu.workers import Call, Worker, call_for, run_for
from windows_side import load

CALLS_PER_LOAD = 4


def results_of_fresh_models(
    path: Path, device: torch.device, call: Call, cuda_graphs: bool
) -> Iterator[list[torch.Tensor]]:
    """Yields the results of models that are each loaded, called some times on a stream of their own, and dropped."""
    while True:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            model = load(path, device, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs, runtime_cache=cuda_graphs)
            for _ in range(CALLS_PER_LOAD):
                yield call.of(model)


def worker_for(path: Path, device: torch.device, cuda_graphs: bool) -> Worker:
    call = call_for(path, device)
    want = call.of(load(path, device, allow_unlisted_gpu=True))
    results = results_of_fresh_models(path, device, call, cuda_graphs)
    return Worker(path.stem, device, results, want, cuda_graphs=cuda_graphs, calls_per_load=CALLS_PER_LOAD)


def main(seconds: float, out: Path, launched: Path, captured: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, graphs = (for_this_host(path, Path(folder)) for path in (launched, captured))
        workers = []
        for device in (torch.device("cuda", index) for index in range(torch.cuda.device_count())):
            workers.append(worker_for(plain, device, cuda_graphs=False))
            workers += [worker_for(graphs, device, cuda_graphs=True) for _ in range(2)]
        run_for(seconds, workers, out)


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(Path, sys.argv[2:5]))
