"""Measures which kernels of ``warm`` a first call finds, by the sizes of both, by who compiled and by who calls.

python -m benchmarks.gpu.warm_sizes OUT.json ARTIFACT

``load``'s first call of EfficientNet-Lite0 took 5 s after ``warm``. Either PyTorch cannot use what TensorRT alone
compiles, although both have the same settings, or the call had a different size: ``warm`` calls at the profile's
``opt``, which was 8, and the benchmark called with golden inputs of batch 1. Every process here has a copy of a folder
that ``warm`` wrote. Processes run at the same time, so the seconds only tell whether kernels were compiled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.gpu.latency import for_this_host
from toolchain import open_artifact
from windows_side import warm
from windows_side.warming.sizes import calls_for, dynamic_dimensions

# Calls at one size after another, and records the seconds of each and the bytes of kernels after it.
_BEGIN = """
import json, os, sys, time
from pathlib import Path
path, folder, sizes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rows = []
def calls(call, kept=lambda: sum(file.stat().st_size for file in Path(folder).glob("*.kernels"))):
    for size in sizes:
        start = time.perf_counter()
        call(size)
        rows.append({"size": size, "seconds": round(time.perf_counter() - start, 3), "kept": kept()})
def shape(spec, size): return [n if isinstance(n, int) else size for n in spec.shape]
"""
_SESSION = """
import numpy as np
from windows_side import Session
with Session(path, allow_unlisted_gpu=True, runtime_cache=folder) as session:
    specs = session.manifest.inputs
    calls(lambda size: session.run({spec.name: np.zeros(shape(spec, size), spec.dtype) for spec in specs}))
"""
_LOAD = """
import torch
from windows_side import load
model = load(path, allow_unlisted_gpu=True, runtime_cache=folder)
def call(size):
    model(**{spec.name: torch.zeros(shape(spec, size), dtype=getattr(torch, spec.dtype), device="cuda")
             for spec in model.manifest.inputs})
    torch.cuda.synchronize()
calls(call)
"""
# Measures what a further size costs by TensorRT-RTX's own API with an empty cache, under one of its strategies.
_BARE = """
import numpy as np, tensorrt_rtx as trt
from cuda.bindings import runtime as cuda
from toolchain import open_artifact
artifact = open_artifact(path)
entry = artifact.manifest.engines[0]
cuda.cudaSetDevice(0), cuda.cudaFree(0)
engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(artifact.engines[0].read())
config = engine.create_runtime_config()
strategies = trt.DynamicShapesKernelSpecializationStrategy
config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, STRATEGY)
cache = config.create_runtime_cache()
config.set_runtime_cache(cache)
start = time.perf_counter()
context = engine.create_execution_context(config)
rows.append({"context": round(time.perf_counter() - start, 3), "kept": memoryview(cache.serialize()).nbytes})
def call(size):
    for binding in entry.inputs:
        context.set_input_shape(binding.name, tuple(size if n < 0 else n for n in binding.shape))
    for binding in (*entry.inputs, *entry.outputs):
        _, pointer = cuda.cudaMalloc(max(int(np.prod(tuple(context.get_tensor_shape(binding.name)))), 1) * 8)
        context.set_tensor_address(binding.name, int(pointer))
    assert context.execute_async_v3(0)
    cuda.cudaStreamSynchronize(0)
calls(call, lambda: memoryview(cache.serialize()).nbytes)
time.sleep(3)
rows.append({"three seconds later": memoryview(cache.serialize()).nbytes})
"""
_END = "\nprint(json.dumps(rows), flush=True)\n"
_PROGRAMS = {"load": _LOAD, "session": _SESSION}
_STRATEGIES = ("LAZY", "EAGER", "NONE")


def run(program: str, path: Path, folder: Path, sizes: list[int]) -> Any:
    """Runs a program in a fresh process, and returns its rows or the end of its error output."""
    command = [sys.executable, "-c", _BEGIN + program + _END, str(path), str(folder), json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ}, timeout=120)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-600:]}


class Trial:
    """The processes of one artifact, which run at the same time; each result is written as it comes."""

    def __init__(self, out: Path, artifact: Path, scratch: Path) -> None:
        self._out, self._scratch, self._document = out, scratch, dict[str, Any]()
        self._lock = Lock()
        self.path = for_this_host(artifact, scratch)
        with open_artifact(self.path) as opened:
            self.least = {name: size.min for name, size in dynamic_dimensions(opened.manifest).items()}
            [self.opt] = {size for call in calls_for(opened.manifest, None) for size in call.sizes.values()}
        [self.low] = set(self.least.values())

    def keep(self, name: str, found: Any) -> None:
        with self._lock:
            self._document[name] = found
            print(json.dumps({name: found}), flush=True)
            self._out.write_text(json.dumps(self._document, indent=1))

    def warmed(self, runtime: Any, size: int) -> Path:
        """Runs ``warm``, and returns its folder of kernels."""
        folder, sizes = self._new_folder(), None if size == self.opt else [self.least]
        report = warm(self.path, runtime=runtime, sizes=sizes, runtime_cache=folder, allow_unlisted_gpu=True)
        kept = sum(file.stat().st_size for file in folder.glob("*.kernels"))
        calls = [round(call.seconds, 3) for call in report.calls]
        self.keep(f"warm by {runtime} at {size}", {"calls": calls, "kept": kept})
        return folder

    def called(self, folder: Path, program: str, sizes: list[int]) -> Any:
        """Runs a program in a process that has a copy of a folder of kernels."""
        return run(program, self.path, Path(shutil.copytree(folder, self._new_folder(), dirs_exist_ok=True)), sizes)

    def bare(self, strategy: str) -> None:
        program = f"STRATEGY = {strategy!r}\n{_BARE}"
        self.keep(f"bare, {strategy}", run(program, self.path, self._scratch, [self.opt, self.low, self.low + 1]))

    def after(self, runtime: str, size: int, wanted: list[tuple[str, list[int]]]) -> None:
        """Runs ``warm``, and then calls in fresh processes."""
        folder = self.warmed(runtime, size)
        for name, sizes in wanted:
            found = self.called(folder, _PROGRAMS[name], sizes)
            self.keep(f"{name} at {sizes[0]}, then {sizes[1]}; warmed by {runtime} at {size}", found)

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))


def main(out: Path, artifact: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(6) as pool:
        trial = Trial(out, artifact, Path(scratch))
        up, down = [trial.low, trial.opt], [trial.opt, trial.low]
        work = [
            pool.submit(trial.after, "tensorrt", trial.opt, [("load", up), ("load", down), ("session", up)]),
            pool.submit(trial.after, "torch", trial.opt, [("load", up), ("session", up)]),
            pool.submit(trial.after, "tensorrt", trial.low, [("load", up), ("session", up)]),
            *(pool.submit(trial.bare, strategy) for strategy in _STRATEGIES),
        ]
        for each in work:
            each.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
