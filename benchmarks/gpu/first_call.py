"""Measures the time from a cold process to its first result, without and with the runtime cache, and the imports.

python -m benchmarks.gpu.first_call OUT.json ARTIFACT ...
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.latency import for_this_host
from windows_side.benchmark.first_call import measure_first_call
from windows_side.options import LoadOptions

_UPSTREAM = """
import time; start = time.perf_counter()
import torch; middle = time.perf_counter()
import torch_tensorrt; print(middle - start, time.perf_counter() - middle)
"""
_LIGHT = """
import time; start = time.perf_counter()
import torch; middle = time.perf_counter()
from windows_side.loader.runtime_library import load_runtime
from toolchain.targets import Backend
load_runtime(Backend.TENSORRT_RTX)
print(middle - start, time.perf_counter() - middle)
"""


def start_up(program: str) -> dict[str, float]:
    """Returns the seconds for importing torch and for the runtime after it, of the better of two fresh processes."""
    runs = []
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        runs.append([float(word) for word in result.stdout.split()[-2:]])
    best = min(runs, key=lambda run: run[1])
    return {"torch": best[0], "runtime": best[1]}


def main(out: Path, paths: list[Path]) -> None:
    import torch

    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "rows": []}
    document["start_up"] = {"import torch_tensorrt": start_up(_UPSTREAM), "our light runtime": start_up(_LIGHT)}
    print(json.dumps(document["start_up"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            here = for_this_host(path, Path(folder))
            loading = LoadOptions(allow_unlisted_gpu=True, runtime_cache=Path(folder) / "kernels")
            for name in ("without cache", "with cache"):
                start = time.perf_counter()
                measured = measure_first_call(here, loading)
                wall = time.perf_counter() - start
                document["rows"].append({"artifact": path.stem, "cache": name, "process": wall, **asdict(measured)})
                print(path.stem, name, json.dumps(document["rows"][-1]), flush=True)
            out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
