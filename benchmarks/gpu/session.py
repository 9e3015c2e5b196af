"""Compares ``Session`` with ``load``, TensorRT-RTX's own API and Torch-TensorRT's own load: start and calls.

python -m benchmarks.gpu.session OUT.json [--only first,compiled,steady,many,stress] [--seconds 60] ARTIFACT ...

A start is reported in phases, each with the seconds since the process began. Two further programs are measured in turns
with it: ``floor`` only starts Python, the driver, CUDA's context and TensorRT-RTX's runtime; ``bare`` runs the engine
by TensorRT-RTX's own API. Each artifact has a folder of kernels below $TRTCROSS_RUNTIME_CACHE, and the first process
that needs them compiles them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

from benchmarks.gpu.latency import for_this_host

PARTS = ("first", "compiled", "steady", "many", "stress")
_SECONDS = 3.0  # how long a throughput is measured
_AT_ONCE = 4

# Each program prints as JSON the seconds from its start to each mark. argv: artifact, folder of kernels.
_BEGIN = """
import json, os, sys, time
begun = float(os.environ["BEGUN"]); marks = {}
def mark(name): marks[name] = round(time.time() - begun, 4)
mark("python")
"""
# What every program needs that uses TensorRT from Python.
_FLOOR = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuInit(0) == 0
mark("the driver has started")
device, context = ctypes.c_int(), ctypes.c_void_p()
assert driver.cuDeviceGet(ctypes.byref(device), 0) == 0
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
assert driver.cuCtxSetCurrent(context) == 0
mark("CUDA's context")
import tensorrt_rtx as trt
mark("TensorRT-RTX is imported")
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
mark("first")
"""
# The imports one after another, which need no GPU.
_IMPORTS = """
import numpy
mark("numpy")
from cuda.bindings import runtime
mark("cuda.bindings")
import tensorrt_rtx
mark("tensorrt_rtx")
import windows_side.session.session
mark("windows_side.Session")
import windows_side.session.running, windows_side.engines.engine
mark("first")
marks["bytecode is cached"] = [os.path.exists(m.__cached__) for m in (numpy, windows_side.session.running)]
"""
_NUMPY_FIRST = """
import numpy as np
mark("numpy")
"""
_SESSION = """
import logging
class Marks(logging.Handler):
    def emit(self, record): mark(record.getMessage())
phases = logging.getLogger("trtcross.session"); phases.setLevel(logging.DEBUG); phases.addHandler(Marks())
phases.propagate = False
from windows_side import Session
mark("import")
session = Session(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2])
mark("session")
import numpy as np
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
_STOCK = """
import torch
mark("torch")
import torch_tensorrt
mark("torch_tensorrt")
from types import SimpleNamespace
import torch_tensorrt.dynamo._compiler as compiler
# It asks for Windows before it looks at the file, whose engines are this host's.
compiler.platform = SimpleNamespace(system=lambda: "Windows", machine=lambda: "AMD64")
program = torch_tensorrt.load_cross_compiled_exported_program(sys.argv[1])
model = program.module()
mark("load")
from toolchain import open_artifact
from windows_side.execution.call import call_of
manifest = open_artifact(sys.argv[1]).manifest
leaves = [torch.zeros([d if isinstance(d, int) else d.min for d in s.shape], dtype=getattr(torch, s.dtype))
          for s in manifest.inputs]
args, kwargs = call_of(manifest, leaves, torch.device("cuda:0"))
result = model(*args, **kwargs)
torch.cuda.synchronize()
mark("first")
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
mark("deserialized")
config = engine.create_runtime_config()
cache = config.create_runtime_cache()
marks["warm"] = False
for name in os.listdir(sys.argv[2]):  # of the folder that sessions share
    head, _, kernels = open(os.path.join(sys.argv[2], name), "rb").read().partition(b"\\n")
    if name.endswith(".kernels") and json.loads(head)["engines"] == artifact.engines[0].sha256:
        marks["warm"] = bool(cache.deserialize(kernels))
mark("kernels")
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
_WITH_NUMPY = _NUMPY_FIRST + _SESSION
# These are measured in turns. "numpy behind it" is for programs that do not import numpy themselves.
_QUICK = {
    "session": _WITH_NUMPY, "bare": _BARE, "floor": _FLOOR, "session, numpy behind it": _SESSION, "imports": _IMPORTS,
}  # fmt: skip
_ROUNDS = 3
# The goal in seconds: a constant, and a factor for the bare API's time of reading, deserializing and the first call.
_GOAL, _GOAL_FACTOR = 0.7, 1.3


def cold(program: str, path: Path, kernels: Path) -> dict[str, Any]:
    """Runs a program in a fresh process, and returns its marks or its error."""
    environment = {**os.environ, "BEGUN": str(time.time())}
    command = [sys.executable, "-c", _BEGIN + program + _END, str(path), str(kernels)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        return {"error": done.stderr[-2000:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def first(path: Path, kernels: Path) -> dict[str, Any]:
    """Measures cold processes: one that may compile kernels, then several that find them."""
    row: dict[str, Any] = {"session, kernels compiled": cold(_WITH_NUMPY, path, kernels)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in _QUICK}
    for _ in range(_ROUNDS):
        for name, program in _QUICK.items():
            runs[name].append(cold(program, path, kernels))
    for name, found in runs.items():
        row[name] = min(found, key=lambda run: run.get("first", 1e9))
        row[f"{name}, all"] = [run.get("first") for run in found]
    row["load"] = cold(_LOAD, path, kernels)
    bare = row["bare"]
    if "first" in bare:
        row["goal"] = round(_GOAL + _GOAL_FACTOR * (bare["first"] - bare["gpu"]), 3)
    return row


def compiled(path: Path) -> dict[str, Any]:
    """Measures cold processes without kernels, Torch-TensorRT's own load among them, which keeps none."""
    row: dict[str, Any] = {}
    for name, program in {"bare": _BARE, "load": _LOAD, "stock": _STOCK}.items():
        with tempfile.TemporaryDirectory() as empty:
            row[name] = cold(program, path, Path(empty))
    return row


def microseconds(callee: Callable[[], Any], wait: Callable[[], Any], *, calls: int = 300) -> dict[str, float]:
    """Returns the microseconds of a call: the median of calls that are waited for, the mean of calls back to back."""
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
    """Measures calls of the raw engine, of sessions and of ``load`` at the least sizes, without and with graphs."""
    import torch

    from benchmarks.gpu.raw import RawEngine, captured
    from toolchain import open_artifact
    from toolchain.graph.program import EngineStep
    from windows_side import Session, load
    from windows_side.session.program import read_program

    def opened(**options: Any) -> Any:
        return Session(path, allow_unlisted_gpu=True, runtime_cache=kernels, **options)

    wait = torch.cuda.synchronize
    with ExitStack() as stack:
        session, graphs = stack.enter_context(opened()), stack.enter_context(opened(cuda_graphs=True))
        names, leaves = [spec.name for spec in session.manifest.inputs], example(session.manifest)
        on_host = dict(zip(names, leaves, strict=True))
        on_gpu = {name: torch.from_numpy(leaf).cuda() for name, leaf in on_host.items()}
        with open_artifact(path) as artifact:
            program = read_program(artifact)
            [step] = [step for step in program.steps if isinstance(step, EngineStep)]
            inputs = [on_gpu[names[program.inputs.index(name)]] for name in step.inputs]
            raw = RawEngine(artifact.engines[0], inputs)
        models = {
            graphed: load(path, allow_unlisted_gpu=True, runtime_cache=kernels, cuda_graphs=graphed)
            for graphed in (False, True)
        }
        session.run(on_gpu), models[False](**on_gpu)  # better kernels are then compiled in the background
        time.sleep(2)
        replay = captured(raw)
        callees: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "raw": (raw, wait),
            "session, torch tensors": (lambda: session(**on_gpu), wait),
            "session, run(feed)": (lambda: session.run(on_gpu), wait),
            "session, numpy": (lambda: session.run(on_host), lambda: None),
            "load": (lambda: models[False](**on_gpu), wait),
            "raw again": (raw, wait),
            "raw, graph": (replay, wait),
            "session, graph, torch tensors": (lambda: graphs(**on_gpu), wait),
            "session, graph, numpy": (lambda: graphs.run(on_host), lambda: None),
            "load, graph": (lambda: models[True](**on_gpu), wait),
            "raw, graph again": (replay, wait),
        }
        found: dict[str, Any] = {name: microseconds(*callee) for name, callee in callees.items()}
        found["the shortest way"] = sum(len(lane._direct) for lane in _lanes(session))
        with torch.cuda.stream(torch.cuda.default_stream()):
            found["session, torch tensors, default stream"] = microseconds(lambda: session(**on_gpu), wait)
    return found


def example(manifest: Any) -> list[Any]:
    """Returns the leaves of a call with the least sizes: 0 or 1 for integers, random numbers for floats."""
    import numpy as np

    random = np.random.default_rng(0)
    found = []
    for spec in manifest.inputs:
        shape = [size if isinstance(size, int) else size.min for size in spec.shape or []]
        values = random.integers(0, 2, shape) if "int" in spec.dtype else random.standard_normal(shape)
        found.append(values.astype(spec.dtype))
    return found


def _lanes(session: Any) -> Iterator[Any]:
    queue = session._running._lanes
    for _ in range(queue.qsize()):
        lane = queue.get()
        queue.put(lane)
        yield lane


def many(path: Path, kernels: Path) -> dict[str, Any]:
    """Measures the calls per second with numpy arrays: four threads on one and on four contexts, and four processes."""
    row: dict[str, Any] = {}
    for graphs in (False, True):
        words = ", graphs" if graphs else ""
        for contexts in (1, _AT_ONCE):
            row[f"{contexts} contexts{words}"] = _threads(path, kernels, contexts, graphs)
        row[f"processes{words}"] = _processes(path, kernels, graphs)
    row["one thread"] = _threads(path, kernels, 1, False, threads=1)
    return row


@contextmanager
def _called(path: Path, kernels: Path, contexts: int, graphs: bool) -> Iterator[Callable[[], Any]]:
    from windows_side import Session

    with Session(
        path, allow_unlisted_gpu=True, runtime_cache=kernels, contexts=contexts, cuda_graphs=graphs
    ) as session:
        leaves = example(session.manifest)
        for _ in range(8 * contexts):
            session.run_leaves(leaves)
        time.sleep(1)  # meanwhile better kernels are compiled
        yield lambda: session.run_leaves(leaves)


def _calls(call: Callable[[], Any], seconds: float) -> int:
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        call()
        count += 1
    return count


def _threads(path: Path, kernels: Path, contexts: int, graphs: bool, *, threads: int = _AT_ONCE) -> float:
    counts: list[int] = []
    with _called(path, kernels, contexts, graphs) as call:
        barrier = Barrier(threads)

        def work() -> None:
            barrier.wait()
            counts.append(_calls(call, _SECONDS))

        workers = [Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return round(sum(counts) / _SECONDS, 1)


def _process(path: Path, kernels: Path, graphs: bool, barrier: Any, answers: Any) -> None:
    with _called(path, kernels, 1, graphs) as call:
        barrier.wait(60)
        answers.put(_calls(call, _SECONDS))


def _processes(path: Path, kernels: Path, graphs: bool) -> float:
    context = get_context("spawn")
    barrier, answers = context.Barrier(_AT_ONCE), context.Queue()
    workers = [
        context.Process(target=_process, args=(path, kernels, graphs, barrier, answers)) for _ in range(_AT_ONCE)
    ]
    for worker in workers:
        worker.start()
    total = sum(answers.get(timeout=90) for _ in workers)
    for worker in workers:
        worker.join()
    return round(total / _SECONDS, 1)


def stress(paths: list[Path], kernels: Path, seconds: float) -> dict[str, Any]:
    """Runs threads on sessions with several contexts, without and with graphs, and compares each result to the bit.

    Every other thread passes torch tensors on the GPU, on a stream of its own; the others pass numpy arrays. Dynamic
    artifacts run only with graphs: without graphs, better kernels replace the first ones and change the bits.
    """
    import torch

    from windows_side import Session

    row: dict[str, Any] = {"seconds": seconds, "wrong": 0, "errors": [], "calls": {}}
    until = [0.0]

    def work(name: str, session: Any, leaves: list[Any], want: list[Any]) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                given = [torch.from_numpy(leaf).cuda() for leaf in leaves] if "torch" in name else leaves
                while time.monotonic() < until[0]:
                    got = [torch.as_tensor(value).cpu() for value in session.run_leaves(given)]
                    row["wrong"] += not all(map(torch.equal, got, want))
                    row["calls"][name] = row["calls"].get(name, 0) + 1
        except Exception as error:  # noqa: BLE001 - the error is part of the report
            row["errors"].append(f"{name}: {error}"[:500])

    with ExitStack() as stack:
        workers = []
        for path in paths:
            for graphs in (False, True):
                session = stack.enter_context(
                    Session(path, allow_unlisted_gpu=True, runtime_cache=kernels, contexts=3, cuda_graphs=graphs)
                )
                if not graphs and any(
                    not isinstance(n, int) for spec in session.manifest.inputs for n in spec.shape or []
                ):
                    continue
                for number in range(_AT_ONCE):
                    leaves = [
                        leaf if leaf.dtype.kind in "iub" else leaf * (number + 1) for leaf in example(session.manifest)
                    ]
                    for _ in range(6):
                        want = [torch.as_tensor(value).clone() for value in session.run_leaves(leaves)]
                    kind = "torch" if number % 2 else "numpy"
                    name = f"{path.stem}, {kind}{', graphs' if graphs else ''}"
                    workers.append(Thread(target=work, args=(name, session, leaves, want)))
        until[0] = time.monotonic() + seconds
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return {**row, "threads": len(workers)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    parts = chosen.only.split(",")
    results: dict[str, Any] = {}

    def keep(name: str, part: str, found: dict[str, Any]) -> None:
        results.setdefault(name, {})[part] = found
        print(json.dumps({name: {part: found}}, indent=1), flush=True)
        chosen.out.write_text(json.dumps(results, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        below = Path(os.environ.get("TRTCROSS_RUNTIME_CACHE", folder))
        here = [for_this_host(path, Path(folder)) for path in chosen.artifacts]
        for path in here:
            kernels = below / path.stem
            kernels.mkdir(parents=True, exist_ok=True)
            if "first" in parts:
                keep(path.stem, "first", first(path, kernels))
            if "compiled" in parts:
                keep(path.stem, "compiled", compiled(path))
            if "many" in parts and path in here[:2]:
                keep(path.stem, "many", many(path, kernels))
            if "steady" in parts:
                import torch

                with torch.cuda.stream(torch.cuda.Stream()):
                    keep(path.stem, "steady", steady(path, kernels))
        if "stress" in parts:
            keep("all", "stress", stress(here, below, chosen.seconds))


if __name__ == "__main__":
    main()
