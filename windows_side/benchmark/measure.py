"""Measures the latency, throughput and GPU memory of a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from windows_side.benchmark.figures import Latency

Callee = Callable[[], Any]


def measure_latency(callees: Sequence[Callee], *, calls: int, warm_up: int) -> list[Latency]:
    """Measures several callees in turn, call by call, so that other load on the machine affects all of them alike."""
    for callee in callees:
        for _ in range(warm_up):
            callee()
    torch.cuda.synchronize()
    samples: list[list[float]] = [[] for _ in callees]
    for _ in range(calls):
        for callee, kept in zip(callees, samples, strict=True):
            kept.append(_milliseconds(callee))
    return [Latency.of(kept) for kept in samples]


def measure_throughput(callee: Callee, *, calls: int, repeats: int = 5) -> float:
    """Returns the milliseconds of a call among ``calls`` that are launched without waiting: the best of ``repeats``."""

    def block() -> None:
        for _ in range(calls):
            callee()

    return min(_milliseconds(block) for _ in range(repeats)) / calls


class GpuMemory:
    """Bytes that are allocated on a GPU from now on, TensorRT's own memory included."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        self._before = self._free()
        self.peak = 0

    def look(self) -> int:
        """Returns the bytes that are allocated now, and updates the peak."""
        taken = self._before - self._free()
        self.peak = max(self.peak, taken)
        return taken

    def _free(self) -> int:
        return int(torch.cuda.mem_get_info(self._device)[0])


def _milliseconds(callee: Callee) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    callee()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
