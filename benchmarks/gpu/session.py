"""``Session`` beside ``load`` and TensorRT-RTX's own API: cold process to first result, and steady calls.

python -m benchmarks.gpu.session OUT.json ARTIFACT ...

Kernels are those in $TRTCROSS_RUNTIME_CACHE, or compiled by the first process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.latency import for_this_host

# Each prints, as JSON, seconds from the start of the process to what it names. argv: artifact, folder of kernels.
_BEGIN = """
import json, os, sys, time
begun = float(os.environ["BEGUN"]); marks = {}
def mark(name): marks[name] = round(time.time() - begun, 4)
mark("python")
"""
_SESSION = """
import numpy as np
mark("numpy")
from windows_side import Session
mark("import")
session = Session(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2])
mark("session")
inputs = session.manifest.inputs
session.run({s.name: np.zeros([d if isinstance(d, int) else d.min for d in s.shape], s.dtype) for s in inputs})
mark("first")
assert "torch" not in sys.modules
marks["warm"] = session.kernels_are_cached
"""
_LOAD = """
import torch
mark("torch")
from windows_side import load
model = load(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2])
mark("load")
from windows_side.execution.call import call_of
leaves = [torch.zeros([d if isinstance(d, int) else d.min for d in s.shape], dtype=getattr(torch, s.dtype))
          for s in model.manifest.inputs]
args, kwargs = call_of(model.manifest, leaves, model.device)
result = model(*args, **kwargs)
torch.cuda.synchronize()
mark("first")
marks["warm"] = model.kernels_are_cached
"""
_BARE = """
import numpy as np
import tensorrt_rtx as trt
from cuda.bindings import runtime as cuda
mark("import")
from toolchain import open_artifact
def ok(result):
    assert int(result[0]) == 0, result
    return result[1] if len(result) > 1 else None
artifact = open_artifact(sys.argv[1])
mark("open")
ok(cuda.cudaSetDevice(0)); ok(cuda.cudaFree(0))
mark("gpu")
plan = artifact.engines[0].read()
mark("read")
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
engine = runtime.deserialize_cuda_engine(plan)
config = engine.create_runtime_config()
cache = config.create_runtime_cache()
marks["warm"] = False
for name in os.listdir(sys.argv[2]):  # of the folder that sessions share
    head, _, kernels = open(os.path.join(sys.argv[2], name), "rb").read().partition(b"\\n")
    if name.endswith(".kernels") and json.loads(head)["engines"] == artifact.engines[0].sha256:
        marks["warm"] = bool(cache.deserialize(kernels))
config.set_runtime_cache(cache)
context = engine.create_execution_context(config)
mark("context")
stream = int(ok(cuda.cudaStreamCreate()))
def bind(binding, shape):
    size = max(int(np.prod(shape)) * 8, 1)
    pointer = ok(cuda.cudaMalloc(size)); ok(cuda.cudaMemset(pointer, 0, size))
    context.set_tensor_address(binding.name, pointer)
entry, sizes = artifact.manifest.engines[0], {}
for binding in entry.inputs:
    low = entry.profiles[0][binding.name].min if entry.profiles else binding.shape
    context.set_input_shape(binding.name, tuple(low)); bind(binding, low)
for binding in entry.outputs:
    bind(binding, tuple(context.get_tensor_shape(binding.name)))
assert context.execute_async_v3(stream)
ok(cuda.cudaStreamSynchronize(stream))
mark("first")
"""
_END = "\nprint(json.dumps(marks), flush=True)\n"
_PROGRAMS = {"session": _SESSION, "bare": _BARE, "load": _LOAD}


def cold(program: str, path: Path, kernels: Path) -> dict[str, Any]:
    """A fresh process to its first result."""
    environment = {**os.environ, "BEGUN": str(time.time())}
    command = [sys.executable, "-c", _BEGIN + program + _END, str(path), str(kernels)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def microseconds(callee: Callable[[], Any], wait: Callable[[], Any], *, calls: int = 300) -> dict[str, float]:
    """Of calls one behind another (each waited for) and of enqueuing alone."""
    for _ in range(30):
        callee()
    wait()
    alone = []
    for _ in range(calls):
        start = time.perf_counter()
        callee()
        wait()
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(calls):
        callee()
    wait()
    together = (time.perf_counter() - start) / calls
    return {"median": round(statistics.median(alone) * 1e6, 1), "back_to_back": round(together * 1e6, 1)}


def steady(path: Path, kernels: Path) -> dict[str, Any]:
    """Calls of the raw engine, of a session and of ``load``, on one example of the least sizes."""
    import numpy as np
    import torch

    from benchmarks.gpu.raw import RawEngine
    from toolchain import open_artifact
    from windows_side import Session, load
    from windows_side.session.program import read_program

    session = Session(path, allow_unlisted_gpu=True, runtime_cache=kernels)
    leaves = [
        torch.zeros(
            [d if isinstance(d, int) else d.min for d in spec.shape or []], dtype=getattr(torch, str(spec.dtype))
        )
        for spec in session.manifest.inputs
    ]
    names = [spec.name for spec in session.manifest.inputs]
    on_gpu = dict(zip(names, (leaf.cuda() for leaf in leaves), strict=True))
    on_host = dict(zip(names, (leaf.numpy() for leaf in leaves), strict=True))
    with open_artifact(path) as artifact:
        program = read_program(artifact)
        [step] = program.steps
        inputs = [on_gpu[names[program.inputs.index(name)]] for name in step.inputs]  # type: ignore[union-attr]
        raw = RawEngine(artifact.engines[0], inputs)
    model = load(path, allow_unlisted_gpu=True, runtime_cache=kernels)
    keywords = {spec.name: on_gpu[spec.name] for spec in model.manifest.inputs}
    session.run(on_gpu), model(**keywords)  # better kernels are compiled beside these
    time.sleep(2)
    wait = torch.cuda.synchronize
    return {
        "raw": microseconds(raw, wait),
        "session, torch tensors": microseconds(lambda: session(**keywords), wait),
        "session, run(feed)": microseconds(lambda: session.run(on_gpu), wait),
        "session, numpy": microseconds(lambda: session.run(on_host), lambda: None),
        "load": microseconds(lambda: model(**keywords), wait),
        "raw again": microseconds(raw, wait),
        "numpy": np.__version__,
    }


def main(out: Path, paths: list[Path]) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            here = for_this_host(path, Path(folder))
            kernels = Path(os.environ.get("TRTCROSS_RUNTIME_CACHE", folder))
            row: dict[str, Any] = {"artifact": path.stem, "first, whatever is cached": cold(_SESSION, here, kernels)}
            for name, program in _PROGRAMS.items():
                if name == "load" and rows:
                    continue  # ten seconds; once is enough
                runs = [cold(program, here, kernels) for _ in range(1 if name == "load" else 3)]
                row[f"first, {name}"] = min(runs, key=lambda run: run["first"])
            import torch

            with torch.cuda.stream(torch.cuda.Stream()):
                row["steady"] = steady(here, kernels)
            rows.append(row)
            print(json.dumps(row, indent=1), flush=True)
            out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
