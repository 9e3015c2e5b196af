"""Asks NVML for this machine's GPUs. Runs as a process of its own: a driver that crashes takes only it along.

NVML starts no CUDA context. Prints one JSON document: ``driver``, ``gpus`` or ``error``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolchain.targets import ComputeCapability

TIMEOUT = 10.0


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine; memory in bytes."""

    index: int
    name: str
    capability: ComputeCapability
    free_memory: int
    total_memory: int


@dataclass(frozen=True)
class Gpus:
    """What the probe found.

    Attributes:
        driver: NVIDIA's driver version, or None.
        gpus: the GPUs.
        problem: why there is no answer, or None.
        known: False where the probe could not tell whether there is a GPU.
    """

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    known: bool = True


@lru_cache(maxsize=1)
def probe_gpus() -> Gpus:
    """Runs the probe, once in a process."""
    try:
        result = subprocess.run(
            [sys.executable, "-m", "windows_side.gpu_probe"], capture_output=True, timeout=TIMEOUT, check=False
        )
        document = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        return Gpus(problem=f"the driver did not answer within {TIMEOUT:.0f} s", known=False)
    except ValueError:
        return Gpus(problem=f"asking the driver crashed (exit code {result.returncode})", known=False)
    gpus = tuple(
        Gpu(gpu["index"], gpu["name"], ComputeCapability(*gpu["capability"]), gpu["free"], gpu["total"])
        for gpu in document["gpus"]
    )
    return Gpus(document["driver"], gpus, document["problem"], document["known"])


def _ask_nvml() -> dict[str, Any]:
    try:
        import pynvml
    except ImportError:
        return _answer(problem="nvidia-ml-py is not installed", known=False)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _answer(problem=f"there is no NVIDIA driver ({error})")
    try:
        gpus = [_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        return _answer(driver=str(pynvml.nvmlSystemGetDriverVersion()), gpus=gpus)
    except pynvml.NVMLError as error:
        return _answer(problem=f"the NVIDIA driver answers with an error: {error}", known=False)
    finally:
        pynvml.nvmlShutdown()


def _describe(pynvml: Any, index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "index": index,
        "name": str(pynvml.nvmlDeviceGetName(handle)),
        "capability": list(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        "free": int(memory.free),
        "total": int(memory.total),
    }


def _answer(
    driver: str | None = None, gpus: list[Any] | None = None, problem: str | None = None, known: bool = True
) -> dict[str, Any]:
    return {"driver": driver, "gpus": gpus or [], "problem": problem, "known": known}


if __name__ == "__main__":
    print(json.dumps(_ask_nvml()))
