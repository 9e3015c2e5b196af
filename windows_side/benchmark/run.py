"""Measures the calls of a warm artifact that ``load`` runs."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from toolchain.artifact import Artifact
from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import call_factory
from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.requirements import Requirement
from toolchain.progress import working
from windows_side.benchmark.figures import BenchmarkOptions, Steady
from windows_side.benchmark.measure import Callee, GpuMemory, measure_latency, measure_throughput
from windows_side.execution.call import call_of
from windows_side.execution.model import LoadedModel
from windows_side.execution.samples import read_inputs, sample_call
from windows_side.loader.loading import load_admitted


def measure_steady(artifact: Artifact, doubts: Iterable[Requirement], options: BenchmarkOptions) -> Steady:
    """Loads the artifact, warms it up and measures calls.

    Args:
        doubts: what :func:`.admission.admit` returned for this artifact.

    Raises:
        UsageError: the file of inputs cannot be read, or the original model cannot be made.
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
    """Makes the original model. The factory is the caller's own code, never the artifact's."""
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
