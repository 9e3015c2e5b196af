"""From a cold process to the first result. Runs as a process of its own, and prints one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import IncompatibleError

_TIMEOUT = 600.0


@dataclass(frozen=True)
class FirstCall:
    """Seconds that a fresh process spends until its first result.

    Attributes:
        imports: importing torch and this package.
        load: ``load``, from the file to the engines on the GPU.
        first_call: the first call, with the compilation of kernels.
        second_call: the one after it.
        cached: whether the kernels were found compiled.
    """

    imports: float
    load: float
    first_call: float
    second_call: float
    cached: bool


def measure_first_call(
    artifact: Path,
    device: str,
    *,
    cache: Path | None,
    cuda_graphs: bool = False,
    allow_unlisted_gpu: bool = False,
    trust: str | None = None,
) -> FirstCall:
    """Loads and runs an artifact in a fresh process.

    Args:
        cache: the runtime cache's folder, or None to do without.

    Raises:
        IncompatibleError: the process failed.
    """
    options = {
        "device": device,
        "allow_unlisted_gpu": allow_unlisted_gpu,
        "cuda_graphs": cuda_graphs,
        "runtime_cache": str(cache) if cache else False,
        "trust": trust,
    }
    command = [sys.executable, "-m", "windows_side.benchmark.first_call", str(artifact), json.dumps(options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if result.returncode:
        raise IncompatibleError(
            f"a fresh process could not run the artifact: {result.stderr.strip()[-500:]}",
            where=str(artifact),
            remedy="`trtcross verify` says more",
        )
    return FirstCall(**json.loads(result.stdout.splitlines()[-1]))


def _measure(artifact: str, options: dict[str, Any]) -> FirstCall:
    start = time.perf_counter()
    import torch

    from toolchain.artifact import open_artifact
    from windows_side.execution.samples import sample_call
    from windows_side.loader.loading import load

    imported = time.perf_counter()
    with open_artifact(artifact) as opened:
        model = load(opened, **options)
        args, kwargs = sample_call(opened, model.device)
    torch.cuda.synchronize()
    loaded = time.perf_counter()
    model(*args, **kwargs)
    torch.cuda.synchronize()
    called = time.perf_counter()
    model(*args, **kwargs)
    torch.cuda.synchronize()
    again = time.perf_counter()
    return FirstCall(imported - start, loaded - imported, called - loaded, again - called, model.kernels_are_cached)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(sys.argv[1], json.loads(sys.argv[2])))))
