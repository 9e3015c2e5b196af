"""A benchmark's options and results, as plain data. Needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from windows_side.options import RunOptions


@dataclass(frozen=True)
class Latency:
    """Milliseconds of calls that are made one at a time, each from its launch to the end of its last kernel.

    Attributes:
        p5: the 5th percentile.
        p95: the 95th percentile.
        samples: every call, in the order in which they were made.
    """

    median: float
    p5: float
    p95: float
    mean: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Latency:
        ordered = sorted(samples)
        return cls(
            statistics.median(ordered),
            ordered[int(0.05 * (len(ordered) - 1))],
            ordered[int(0.95 * (len(ordered) - 1))],
            statistics.fmean(ordered),
            tuple(samples),
        )


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, and how.

    Attributes:
        source: a safetensors file of tensors by input name. None means the golden inputs, or random ones where there
            are none.
        calls: the number of calls that are measured.
        warm_up: the number of calls before those.
        original: ``module:factory`` of the original model, which is measured too, in eager PyTorch.
    """

    loading: RunOptions
    source: Path | None = None
    calls: int = 200
    warm_up: int = 20
    original: str | None = None


@dataclass(frozen=True)
class Steady:
    """The figures of a loaded model once it is warm.

    Attributes:
        back_to_back: milliseconds of a call among many that are launched without waiting.
        loaded: bytes of GPU memory in use after loading.
        peak: the most bytes of GPU memory in use.
        original: the latency of the original model, where it was asked for.
    """

    machine: dict[str, str]
    latency: Latency
    back_to_back: float
    loaded: int
    peak: int
    original: Latency | None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as members of the document of ``bench --json``."""
        return {
            "machine": self.machine,
            "latency": asdict(self.latency),
            "throughput": {"milliseconds": self.back_to_back, "calls_per_second": 1000 / self.back_to_back},
            "gpu_memory": {"loaded": self.loaded, "peak": self.peak},
            "original": {"latency": asdict(self.original)} if self.original else None,
        }
