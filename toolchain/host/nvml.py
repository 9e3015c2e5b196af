"""Asks NVML for this machine's GPUs: the program that :mod:`toolchain.host.gpu_probe` runs as a child process.

It prints one JSON document: ``driver``, ``gpus``, ``problem`` and ``known``. NVML starts no CUDA context. The module
imports little, since every ``check`` and ``load`` waits for it.
"""

from __future__ import annotations

import json
from typing import Any


def ask_nvml() -> dict[str, Any]:
    """Returns the driver's version and the GPUs; without GPUs, why, and whether it is known that there are none."""
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


def main() -> None:
    """Prints what NVML reports of this machine's GPUs, as JSON."""
    print(json.dumps(ask_nvml()))
