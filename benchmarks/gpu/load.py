"""Measures ``load`` in fresh processes by phases, up to the first result, with our reader and with torch.export's.

python -m benchmarks.gpu.load OUT.json ARTIFACT ...

The floor of a load is what both readers need: engines are read, checked, decoded and given to TensorRT. ``warm`` first
compiles the kernels into the runtime cache, for the sizes of the call, and is measured too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPEAT = 3

# Prints the seconds of a fresh process. In its second load everything is imported and every file is in memory.
PROGRAM = """
import json, os, sys, time
clock = time.perf_counter
path, kernels, way = sys.argv[1:]
taken, start = {}, clock()

def phase(name):
    global start
    now = clock()
    taken[name] = now - start
    start = clock()

import torch
torch.cuda.init(); torch.zeros(1, device="cuda")
phase("import torch, CUDA")
from windows_side.execution.flat_program import flat_program
from windows_side.loader import loading
from windows_side.loader.flat import engine_info
from windows_side.loader.replace import make_engine
if way == "torch.export":
    loading.load_flat = lambda *args, **options: flat_program(loading.load_program(*args, **options))
phase("import trtcross")

def load():
    return loading.load(path, allow_unlisted_gpu=True, runtime_cache=kernels)

model = load()
torch.cuda.synchronize()
phase("load")
from toolchain import open_artifact
from windows_side.execution.call import call_of
from windows_side.warming.sizes import calls_for
with open_artifact(path) as artifact:
    shapes = calls_for(artifact.manifest, None)[0].shapes
leaves = [spec.value if shape is None else torch.zeros(shape, dtype=getattr(torch, spec.dtype))
          for spec, shape in zip(model.manifest.inputs, shapes, strict=True)]
args, kwargs = call_of(model.manifest, leaves, model.device)
start = clock()
model(*args, **kwargs)
torch.cuda.synchronize()
phase("first call")
taken["cached"] = model.kernels_are_cached
seconds = []
for _ in range(5):
    start = clock()
    again = load()
    torch.cuda.synchronize()
    seconds.append(clock() - start)
    del again
taken["second load"] = min(seconds)
floors = []
with open_artifact(path) as artifact:
    device = loading.local_device(torch.device("cuda", 0))
    for _ in range(5):
        start = clock()
        engines = [make_engine(engine_info(artifact, index, device)) for index in range(len(artifact.engines))]
        torch.cuda.synchronize()
        floors.append(clock() - start)
        del engines
taken["floor"] = min(floors)
taken["torch's reader was imported"] = "torch._export.serde.serialize" in sys.modules
print(json.dumps(taken))
"""


def measured(path: Path, kernels: Path, way: str) -> dict[str, Any]:
    """Returns the figures of the process with the shortest load among several, and the first calls of all of them."""
    runs = []
    for _ in range(REPEAT):
        command = [sys.executable, "-c", PROGRAM, str(path), str(kernels), way]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        if done.returncode:
            return {"failed": done.stderr[-1000:]}
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best: dict[str, Any] = min(runs, key=lambda run: float(run["load"]))
    return best | {"first calls": [run["first call"] for run in runs]}


def main(out: Path, paths: list[Path]) -> None:
    from benchmarks.gpu.latency import for_this_host
    from windows_side import warm

    document: dict[str, Any] = {"rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            here, kernels = for_this_host(path, Path(folder)), Path(folder) / "kernels"
            warmed = {}
            for runtime in ("tensorrt", "torch"):
                try:
                    report = warm(here, runtime=runtime, runtime_cache=kernels / runtime, allow_unlisted_gpu=True)
                    warmed[runtime] = {"seconds": report.seconds, "calls": [call.seconds for call in report.calls]}
                except Exception as error:  # noqa: BLE001 - a session refuses what needs torch
                    warmed[runtime] = {"failed": str(error)[:300]}
            for kept in warmed:
                for way in ("ours", "torch.export"):
                    row = {"artifact": path.stem, "way": way, "kernels by": kept, "warm": warmed[kept]}
                    document["rows"].append(row | measured(here, kernels / kept, way))
                    print(json.dumps(document["rows"][-1]), flush=True)
                    out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(arg) for arg in sys.argv[2:]])
