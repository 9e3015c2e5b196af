"""Measures calls in onnxruntime, with arrays on the host, as its users have them. Needs no torch."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import UsageError
from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.nvml import ask_nvml
from windows_side.benchmark.figures import BenchmarkOptions, Latency, Steady
from windows_side.onnxruntime.session import OnnxSession, gpu_index
from windows_side.session.samples import sample_leaves

_REPEATS = 5


def measure_onnx(artifact: Artifact, options: BenchmarkOptions) -> Steady:
    """Opens a session of onnxruntime, and measures calls; copies of inputs and outputs are included.

    Raises:
        UsageError: CUDA graphs were asked for, which need arrays at fixed addresses.
    """
    if options.loading.cuda_graphs:
        raise UsageError(
            "a CUDA graph reads and writes fixed addresses, and onnxruntime's calls have new arrays each time",
            where="--cuda-graphs",
            remedy="leave it out, or measure with --runtime tensorrt",
        )
    index = gpu_index(options.loading.device)
    before = _free(index)
    with OnnxSession(artifact, options.loading) as session:
        leaves = sample_leaves(artifact, options.source)

        def call() -> None:
            session.run_leaves(leaves)

        loaded = before - _free(index)
        for _ in range(options.warm_up):
            call()
        latency = Latency.of([_milliseconds(call) for _ in range(options.calls)])
        peak = max(loaded, before - _free(index))
        back_to_back = _back_to_back(call, options.calls)
    return Steady(_machine(artifact, index, session), latency, back_to_back, loaded, peak, None)


def _machine(artifact: Artifact, index: int, session: OnnxSession) -> dict[str, str]:
    gpus = probe_gpus()
    return {
        "gpu": next((gpu.name for gpu in gpus.gpus if gpu.index == index), "unknown"),
        "driver": gpus.driver or "unknown",
        "onnxruntime": session.version,
        "runtime": artifact.manifest.target.runtime,
        "os": platform.platform(),
    }


def _free(index: int) -> int:
    """Returns the bytes that are free on a GPU, as the driver reports them; 0 where it does not."""
    gpus: list[dict[str, Any]] = ask_nvml()["gpus"]
    return next((int(gpu["free"]) for gpu in gpus if gpu["index"] == index), 0)


def _milliseconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _back_to_back(call: Callable[[], None], calls: int) -> float:
    """Returns the milliseconds of a call among many: the best of ``_REPEATS``."""

    def block() -> None:
        for _ in range(calls):
            call()

    return min(_milliseconds(block) for _ in range(_REPEATS)) / calls
