"""Measures host and GPU memory of loading and running, in units of the engines' size; one process per artifact.

python -m benchmarks.gpu.memory OUT.json ARTIFACT ...
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.latency import for_this_host
from benchmarks.measure import REPOSITORY, memory


def _measure(path: str, warm: str) -> dict[str, Any]:
    """Measures one artifact in this process.

    Args:
        path: the artifact.
        warm: a small artifact that is loaded and run first, so that the memory of CUDA and libraries does not count.
    """
    import torch

    from toolchain import open_artifact
    from windows_side import load
    from windows_side.benchmark.measure import GpuMemory
    from windows_side.execution.samples import sample_call

    def run(which: str) -> Any:
        model = load(which, allow_unlisted_gpu=True, runtime_cache=False)
        with open_artifact(which) as artifact:
            args, kwargs = sample_call(artifact, model.device)
        return model, args, kwargs

    kept, args, kwargs = run(warm)
    kept(*args, **kwargs)
    gc.collect()
    with open_artifact(path) as artifact:
        engines = sum(engine.size for engine in artifact.engines)
    gpu = GpuMemory(torch.device("cuda:0"))
    _clear_mark()
    before = memory("self")["VmRSS"]
    model, args, kwargs = run(path)
    loaded = {"peak": memory("self")["VmHWM"] - before, "after": memory("self")["VmRSS"] - before, "gpu": gpu.look()}
    _clear_mark()
    model(*args, **kwargs)
    torch.cuda.synchronize()
    first = {"peak": memory("self")["VmHWM"] - before, "after": memory("self")["VmRSS"] - before, "gpu": gpu.look()}
    return {"engines": engines, "load": loaded, "first_call": first}


def _clear_mark() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to the resident memory
    except OSError as error:
        print(f"the high-water mark cannot be reset: {error}", file=sys.stderr)


def main(out: Path, paths: list[Path]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm = for_this_host(next(path for path in paths if "two_outputs" in path.name), Path(folder))
        for path in paths:
            here = for_this_host(path, Path(folder))
            command = [sys.executable, "-m", "benchmarks.gpu.memory", "--one", str(here), str(warm)]
            result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
            if result.returncode:
                print("FAILED", path, result.stderr[-500:], flush=True)
                continue
            row = {"artifact": path.stem, **json.loads(result.stdout.splitlines()[-1])}
            rows.append(row)
            print(json.dumps(row), f"host peak {row['load']['peak'] / row['engines']:.2f} engines", flush=True)
            out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(_measure(*sys.argv[2:])))
    else:
        main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
