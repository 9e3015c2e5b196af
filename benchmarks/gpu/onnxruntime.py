"""Compares onnxruntime with NVIDIA's plugin, ``Session`` and ``load``: cold process to first result, and steady calls.

python -m benchmarks.gpu.onnxruntime OUT.json ARTIFACT ...

Each figure is measured in a process of its own, because two libraries of TensorRT-RTX may not work in one process.
Kernels are those in $TRTCROSS_RUNTIME_CACHE, or are compiled by the first process.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.latency import for_this_host
from benchmarks.gpu.session import _LOAD, _SESSION, cold
from toolchain import open_artifact
from toolchain.formats.onnx_file import write_onnx

# argv: artifact, folder of kernels; the ONNX file is beside the artifact.
_ZEROS = """
def zeros(specs):
    return {s.name: np.zeros([d if isinstance(d, int) else d.min for d in s.shape], s.dtype) for s in specs if s.dtype}
"""
_ONNX = """
import numpy as np
mark("numpy")
from toolchain import open_artifact
from windows_side.onnxruntime.session import OnnxSession
from windows_side.options import LoadOptions
mark("import")
with open_artifact(sys.argv[1]) as artifact:
    session = OnnxSession(artifact, LoadOptions(allow_unlisted_gpu=True, runtime_cache=sys.argv[2]))
mark("session")
feed = zeros(session.manifest.inputs)
session.run(feed)
mark("first")
assert "torch" not in sys.modules
"""
# A program that uses onnxruntime without trtcross.
_PLAIN = """
import numpy as np, onnxruntime as ort, onnxruntime_ep_nv_tensorrt_rtx as plugin
mark("import")
ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
mark("plugin")
options = ort.SessionOptions()
options.log_severity_level = 3
devices = [d for d in ort.get_ep_devices() if d.ep_name == plugin.get_ep_name()]
options.add_provider_for_devices(devices[:1], {"nv_runtime_cache_path": os.path.join(sys.argv[2], "onnxruntime")})
session = ort.InferenceSession(sys.argv[1].replace(".pt2", ".onnx"), sess_options=options)
mark("session")
TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(bool)": "bool"}
def least(shape):
    return [size if isinstance(size, int) else 1 for size in shape]
feed = {given.name: np.zeros(least(given.shape), TYPES[given.type]) for given in session.get_inputs()}
session.run(None, feed)
mark("first")
"""
_TIMES = """
import statistics
def timed(name, call, wait=lambda: None, calls=300):
    for _ in range(30): call()
    wait()
    alone = []
    for _ in range(calls):
        start = time.perf_counter(); call(); wait(); alone.append(time.perf_counter() - start)
    marks[name] = round(statistics.median(alone) * 1e6, 1)
"""
_STEADY = {
    "onnxruntime, numpy": _ONNX + _TIMES + 'timed("onnxruntime, numpy", lambda: session.run(feed))',
    "onnxruntime, plain": _PLAIN + _TIMES + 'timed("onnxruntime, plain", lambda: session.run(None, feed))',
    "onnxruntime, on the GPU": _PLAIN
    + _TIMES
    + """
binding = session.io_binding()
for name, array in feed.items():
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "gpu", 0, 0x10DE))
for output, array in zip(session.get_outputs(), session.run(None, feed)):
    binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(array, "gpu", 0, 0x10DE))
timed("onnxruntime, on the GPU", lambda: session.run_with_iobinding(binding))
""",
    "session, numpy": _SESSION
    + _TIMES
    + 'feed = zeros(session.manifest.inputs)\ntimed("session, numpy", lambda: session.run(feed))',
    "session, on the GPU": "import torch\n"
    + _SESSION.replace('assert "torch" not in sys.modules', "")
    + _TIMES
    + """
feed = {name: torch.from_numpy(array).cuda() for name, array in zeros(session.manifest.inputs).items()}
timed("session, on the GPU", lambda: session.run(feed), torch.cuda.synchronize)
""",
    "load, on the GPU": _LOAD
    + _TIMES
    + 'timed("load, on the GPU", lambda: model(*args, **kwargs), torch.cuda.synchronize)',
}


def figures(path: Path, kernels: Path) -> Iterator[tuple[str, Any]]:
    """Yields all figures of one artifact by name, the most important first; a figure that failed is its error."""
    firsts = {"onnxruntime, plain": _PLAIN, "session": _SESSION, "onnxruntime": _ONNX}
    for name in ("onnxruntime, plain", "session"):
        yield f"first, {name}", _first(firsts[name], path, kernels)
    for name in ("onnxruntime, on the GPU", "session, on the GPU", "load, on the GPU"):
        found = _tried(_ZEROS + _STEADY[name], path, kernels)
        yield f"steady, {name}", found.get(name, found)
        if name.startswith("load"):
            yield "first, load", {"first": found.get("first"), "warm": found.get("warm")}
    for name in ("onnxruntime, plain", "session, numpy", "onnxruntime, numpy"):
        found = _tried(_ZEROS + _STEADY[name], path, kernels)
        yield f"steady, {name}", found.get(name, found)
    yield "first, onnxruntime", _first(firsts["onnxruntime"], path, kernels)


def _first(program: str, path: Path, kernels: Path) -> dict[str, Any]:
    """Returns the first of three processes, which may compile kernels, and the fastest one."""
    runs = [_tried(_ZEROS + program, path, kernels) for _ in range(3)]
    return {"fresh": runs[0], "best": min(runs, key=lambda run: run.get("first", 1e9))}


def _tried(program: str, path: Path, kernels: Path) -> dict[str, Any]:
    try:
        return cold(program, path, kernels)
    except RuntimeError as error:
        return {"error": str(error).strip().splitlines()[-1][:500]}


def main(out: Path, paths: list[Path]) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        kernels = Path(os.environ.get("TRTCROSS_RUNTIME_CACHE", folder))
        for path in paths:
            here = for_this_host(path, Path(folder))
            with open_artifact(here) as artifact:
                write_onnx(artifact, here.with_suffix(".onnx"), compatibility=False)
            rows.append({"artifact": here.stem})
            for name, figure in figures(here, kernels):
                rows[-1][name] = figure
                print(name, json.dumps(figure), flush=True)
                out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
