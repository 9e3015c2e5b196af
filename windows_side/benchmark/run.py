"""A benchmark of an artifact on this machine: what it takes to start, and what a call takes from then on."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from toolchain.artifact import Artifact
from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import call_factory
from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.requirements import Requirement
from toolchain.progress import working
from windows_side.benchmark.first_call import FirstCall, measure_first_call
from windows_side.benchmark.measure import Callee, GpuMemory, Latency, measure_latency, measure_throughput
from windows_side.execution.call import call_of
from windows_side.execution.model import LoadedModel
from windows_side.execution.samples import read_inputs, sample_call
from windows_side.loader.loading import load_admitted
from windows_side.options import LoadOptions


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured.

    Attributes:
        source: a file of tensors by input name; None: golden I/O, else random ones.
        calls: how many are measured, and
        warm_up: how many before those.
        original: ``module:factory`` of the model to measure beside it, in eager PyTorch.
    """

    loading: LoadOptions
    source: Path | None = None
    calls: int = 200
    warm_up: int = 20
    original: str | None = None


@dataclass(frozen=True)
class Steady:
    """A loaded model, once it is warm.

    Attributes:
        back_to_back: milliseconds of a call among many that are launched without waiting.
        loaded: bytes of GPU memory after loading, and
        peak: at the most.
        original: of the original model, where it was asked for.
    """

    machine: dict[str, str]
    latency: Latency
    back_to_back: float
    loaded: int
    peak: int
    original: Latency | None

    def to_json(self) -> dict[str, Any]:
        """As members of the document of ``bench --json``."""
        return {
            "machine": self.machine,
            "latency": asdict(self.latency),
            "throughput": {"milliseconds": self.back_to_back, "calls_per_second": 1000 / self.back_to_back},
            "gpu_memory": {"loaded": self.loaded, "peak": self.peak},
            "original": {"latency": asdict(self.original)} if self.original else None,
        }


def measure_first_calls(artifact: Artifact, loading: LoadOptions) -> Iterator[tuple[str, FirstCall]]:
    """Fresh processes: first ``without_cache``, which fills the kernel cache, then ``with_cache``."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("without_cache", "with_cache"):
            options = loading.model_copy(update={"runtime_cache": folder})
            with working(f"timing a fresh process {name.replace('_', ' ')}"):
                measured = measure_first_call(artifact.path, options)
            yield name, measured


def measure_steady(artifact: Artifact, doubts: Iterable[Requirement], options: BenchmarkOptions) -> Steady:
    """Loads the artifact, and measures calls.

    Args:
        doubts: what :func:`.admission.admit` returned for this artifact.
    """
    memory = GpuMemory(torch.device(options.loading.device))
    with working("loading the engines", artifact.container.size):
        model = load_admitted(artifact, doubts, options.loading)
    loaded = memory.look()
    args, kwargs = _call(artifact, model, options.source)
    callees: list[Callee] = [lambda: model(*args, **kwargs)]
    if options.original:
        original = _original(options.original, model.device)
        callees.append(lambda: original(*args, **kwargs))
    with torch.cuda.device(model.device), torch.no_grad():
        with working(f"measuring {options.calls} calls"):
            ours, *originals = measure_latency(callees, calls=options.calls, warm_up=options.warm_up)
        memory.look()
        with working("measuring calls back to back"):
            back_to_back = measure_throughput(callees[0], calls=options.calls)
    return Steady(_machine(model), ours, back_to_back, loaded, memory.peak, originals[0] if originals else None)


def _call(artifact: Artifact, model: LoadedModel, source: Path | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if source is None:
        return sample_call(artifact, model.device)
    return call_of(artifact.manifest, read_inputs(artifact.manifest, source), model.device)


def _original(name: str, device: torch.device) -> Any:
    """The caller's own factory, which is the caller's own code."""
    where, remedy = f"--original {name}", "give module:factory as to `trtcross build`"
    try:
        made = call_factory(name)
    except (BuildFailedError, UsageError) as error:
        raise UsageError(f"the original model cannot be made: {error.problem}", where=where, remedy=remedy) from error
    original = made[0] if isinstance(made, tuple) and made else made
    if not callable(getattr(original, "to", None)):
        raise UsageError("the original model is not an nn.Module", where=where, remedy=remedy)
    return original.to(device)


def _machine(model: LoadedModel) -> dict[str, str]:
    return {
        "gpu": torch.cuda.get_device_name(model.device),
        "driver": probe_gpus().driver or "unknown",
        "torch": torch.__version__,
        "runtime": model.manifest.target.runtime,
        "os": platform.platform(),
    }
