"""Measures our loaded model, ``execute_engine`` and TensorRT-RTX's own call of the same plan in turns, in one process.

python -m benchmarks.gpu.latency OUT.json ARTIFACT ...
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.gpu.raw import RawEngine, captured, engine_inputs
from toolchain import open_artifact
from toolchain.artifact import Artifact
from toolchain.convert import convert_artifact
from toolchain.manifest.models import DynamicSize
from toolchain.targets import Platform
from windows_side import LoadedModel, load
from windows_side.benchmark.measure import measure_latency, measure_throughput
from windows_side.execution.call import call_of
from windows_side.execution.samples import read_golden

BATCHES = (1, 8)
CALLS = 100
_SETTLE_SECONDS = 2.0  # kernels for the very shapes are compiled in the background after the first calls


def for_this_host(path: Path, folder: Path) -> Path:
    """Converts an artifact to Linux, into a folder, and returns its path."""
    out = folder / path.name
    with open_artifact(path) as artifact:
        convert_artifact(artifact, out, Platform.LINUX_X86_64)
    return out


def batches(artifact: Artifact) -> dict[int, list[Any]]:
    """Returns the leaves of a call by batch size: golden inputs, whose first row is repeated for a dynamic batch."""
    golden = read_golden(artifact)[0][0]
    first = artifact.manifest.inputs[0].shape or [1]
    if not isinstance(first[0], DynamicSize):
        return {first[0]: golden}
    return {batch: [_repeated(leaf, batch) for leaf in golden] for batch in BATCHES}


def _repeated(leaf: Any, batch: int) -> Any:
    return leaf[:1].repeat(batch, *[1] * (leaf.dim() - 1)) if isinstance(leaf, torch.Tensor) else leaf


def callees(path: Path, artifact: Artifact, leaves: list[Any]) -> dict[str, Callable[[], Any]]:
    """Returns the calls to measure by name; those of the engine itself only if the artifact has exactly one."""
    device = torch.device("cuda:0")
    args, kwargs = call_of(artifact.manifest, leaves, device)
    flat = pytree.tree_leaves((args, kwargs))
    odd_args, odd_kwargs = pytree.tree_map_only(torch.Tensor, _at_an_odd_address, (args, kwargs))
    model = load(path, allow_unlisted_gpu=True)
    graphs = load(path, allow_unlisted_gpu=True, cuda_graphs=True)
    found: dict[str, Callable[[], Any]] = {
        "ours": lambda: model(*args, **kwargs),
        "ours, CUDA graphs": lambda: graphs(*args, **kwargs),
        "ours, CUDA graphs, copied": lambda: graphs(*odd_args, **odd_kwargs),
    }
    if len(artifact.engines) == 1:
        engine = _engine_of(model)
        inputs = engine_inputs(model, flat)
        raw = RawEngine(artifact.engines[0], inputs)
        found["execute_engine"] = lambda: torch.ops.tensorrt.execute_engine(inputs, engine)
        found["raw"] = raw
        found["raw, CUDA graph"] = captured(raw)
    return found


def _at_an_odd_address(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a copy at an address that is not aligned, so that no graph reads it in place."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return memory[1:].view(tensor.shape).copy_(tensor)


def _engine_of(model: LoadedModel) -> Any:
    return next(value for value in model.program.constants.values() if isinstance(value, torch.ScriptObject))


def measure(path: Path) -> Iterator[dict[str, Any]]:
    with open_artifact(path) as artifact, torch.no_grad():
        for batch, leaves in batches(artifact).items():
            named = callees(path, artifact, leaves)
            for callee in named.values():
                callee()
            torch.cuda.synchronize()
            time.sleep(_SETTLE_SECONDS)
            for stream in ("default", "own"):
                place = torch.cuda.default_stream() if stream == "default" else torch.cuda.Stream()
                with torch.cuda.stream(place):
                    latencies = measure_latency(list(named.values()), calls=CALLS, warm_up=20)
                    for (name, callee), latency in zip(named.items(), latencies, strict=True):
                        yield {
                            "artifact": path.stem, "batch": batch, "stream": stream, "callee": name,
                            "one_at_a_time": {k: v for k, v in vars(replace(latency, samples=())).items() if v != ()},
                            "back_to_back": measure_throughput(callee, calls=100),
                        }  # fmt: skip
            del named


def main(out: Path, paths: list[Path]) -> None:
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            try:
                for row in measure(for_this_host(path, Path(folder))):
                    document["rows"].append(row)
                    print(row["artifact"], row["batch"], row["stream"], row["callee"],
                          f"{row['one_at_a_time']['median']:.4f} {row['back_to_back']:.4f}", flush=True)  # fmt: skip
            except Exception as error:  # noqa: BLE001 - one artifact's failure must not stop the others
                print("FAILED", path, type(error).__name__, str(error)[:500], flush=True)
                document["rows"].append({"artifact": path.stem, "error": str(error)[:500]})
            out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
