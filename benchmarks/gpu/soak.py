"""Several models, threads and GPUs at once, for as long as is asked: results stay right, memory does not grow.

python -m benchmarks.gpu.soak SECONDS OUT.json ARTIFACT ...
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.gpu.latency import for_this_host
from benchmarks.measure import memory
from toolchain import open_artifact
from windows_side import LoadedModel, load
from windows_side.sample import sample_call

THREADS_PER_MODEL = 2


class Worker(threading.Thread):
    """Calls one model on a stream of its own and compares every result with the first."""

    def __init__(self, name: str, model: LoadedModel, graphs: bool, call: Any, want: list[torch.Tensor]) -> None:
        super().__init__(name=name)
        self._model, self._graphs, self._call, self._want = model, graphs, call, want
        self.until = 0.0
        self.calls, self.worst = 0, 0.0
        self.error: str | None = None

    def run(self) -> None:
        args, kwargs = self._call
        try:
            with torch.cuda.stream(torch.cuda.Stream(self._model.device)):
                while time.monotonic() < self.until:
                    got = pytree.tree_leaves(self._model(*args, **kwargs))
                    for a, b in zip(got, self._want, strict=True):
                        self.worst = max(self.worst, ((a - b).norm() / b.norm()).item())
                    self.calls += 1
        except Exception as error:  # noqa: BLE001 - it is what the run reports
            self.error = f"{type(error).__name__}: {error}"[:500]

    def summary(self) -> dict[str, Any]:
        return {"artifact": self.name, "device": str(self._model.device), "cuda_graphs": self._graphs,
                "calls": self.calls, "worst": self.worst, "error": self.error}  # fmt: skip


def main(seconds: float, out: Path, paths: list[Path]) -> None:
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, path in enumerate(paths):
            here = for_this_host(path, Path(folder))
            device, graphs = f"cuda:{index % torch.cuda.device_count()}", bool(index // 2 % 2)
            model = load(here, device, allow_unlisted_gpu=True, cuda_graphs=graphs)
            with open_artifact(here) as artifact:
                call = sample_call(artifact, model.device)
            for _ in range(20):  # until the kernels for these shapes are there
                model(*call[0], **call[1])
            time.sleep(1)
            want = pytree.tree_leaves(model(*call[0], **call[1]))
            workers += [Worker(path.stem, model, graphs, call, want) for _ in range(THREADS_PER_MODEL)]
    torch.cuda.synchronize()
    until = time.monotonic() + seconds
    for worker in workers:
        worker.until = until
        worker.start()
    samples: list[dict[str, Any]] = []
    while any(worker.is_alive() for worker in workers):
        free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]
        samples.append({"seconds": seconds - (until - time.monotonic()), "host": memory("self")["VmRSS"], "free": free})
        write(out, workers, samples)  # as it goes: a long run may be cut off
        time.sleep(2)
    write(out, workers, samples)
    print(json.dumps([worker.summary() for worker in workers]))
    print("first, middle, last:", samples[0], samples[len(samples) // 2], samples[-1])


def write(out: Path, workers: list[Worker], samples: list[dict[str, Any]]) -> None:
    gpus = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    document = {"gpus": gpus, "workers": [worker.summary() for worker in workers], "memory": samples}
    out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
