"""Measures the calls of a warm artifact that ``Session`` runs. Needs no torch."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toolchain.artifact import Artifact
from toolchain.host.gpu_probe import probe_gpus
from windows_side.benchmark.figures import BenchmarkOptions, Latency, Steady
from windows_side.engines import cuda
from windows_side.engines.cuda import Gpu, Stream
from windows_side.session.ahead import device_index
from windows_side.session.device_array import DeviceArray
from windows_side.session.memory import DeviceMemory
from windows_side.session.opening import open_session
from windows_side.session.samples import sample_leaves

_REPEATS = 5


def measure_session(artifact: Artifact, options: BenchmarkOptions) -> Steady:
    """Opens a session on a stream of its own, and measures calls whose arrays are on the GPU."""
    gpu = Gpu(device_index(options.loading.device))
    gpu.start()
    with gpu.current():
        before = cuda.free_memory()
        stream, memory = cuda.create_stream(), DeviceMemory()
        try:
            with open_session(artifact, options.loading, stream=stream) as session:
                loaded = before - cuda.free_memory()
                leaves = [_on_gpu(leaf, gpu, memory) for leaf in sample_leaves(artifact, options.source)]

                def call() -> None:
                    session.run_leaves(leaves)

                for _ in range(options.warm_up):
                    call()
                cuda.synchronize(stream)
                latency = Latency.of([_milliseconds(call, stream) for _ in range(options.calls)])
                peak = max(loaded, before - cuda.free_memory())
                back_to_back = _back_to_back(call, stream, options.calls)
        finally:
            memory.close()
            cuda.destroy_stream(stream)
    machine = {
        "gpu": gpu.name,
        "driver": probe_gpus().driver or "unknown",
        "runtime": artifact.manifest.target.runtime,
        "os": platform.platform(),
    }
    return Steady(machine, latency, back_to_back, loaded, peak, None)


def _on_gpu(leaf: Any, gpu: Gpu, memory: DeviceMemory) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    array = DeviceArray(memory, gpu, leaf.shape, leaf.dtype.name, None)
    if leaf.nbytes:
        cuda.upload(array.pointer, leaf.tobytes())
    return array


def _milliseconds(call: Callable[[], None], stream: Stream) -> float:
    start = time.perf_counter()
    call()
    cuda.synchronize(stream)
    return (time.perf_counter() - start) * 1000


def _back_to_back(call: Callable[[], None], stream: Stream, calls: int) -> float:
    """Returns the milliseconds of a call among many that are enqueued without waiting: the best of ``_REPEATS``."""

    def block() -> None:
        for _ in range(calls):
            call()

    return min(_milliseconds(block, stream) for _ in range(_REPEATS)) / calls
