"""``trtcross bench``: latency, throughput, first call and memory on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.cli.options import signer_options, trust_option
from toolchain.cli.output import Output, verb
from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import call_factory
from toolchain.signing.policy import Policy
from toolchain.targets import DEVICE
from toolchain.text import size_text
from windows_side.preflight.requirements import require

if TYPE_CHECKING:
    from windows_side.execution.model import LoadedModel


def _percent(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``10`` or ``10%``."""
    try:
        return None if value is None else float(value.removesuffix("%"))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no percentage, such as 10 or 10%") from error


_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("artifact")
@click.option("--device", default=DEVICE, show_default=True, help="Where to run.")
@click.option("--input", "source", type=_PATH, help="Tensors by input name; else golden I/O, else random ones.")
@click.option("--calls", type=click.IntRange(min=5), default=200, show_default=True, help="Calls that are measured.")
@click.option("--warm-up", type=click.IntRange(min=1), default=20, show_default=True, help="Calls before those.")
@click.option("--cuda-graphs", is_flag=True, help="Replay the whole program as a CUDA graph.")
@click.option("--first-call/--no-first-call", default=True, help="Time fresh processes, without and with the cache.")
@click.option("--original", metavar="MODULE:FACTORY", help="Measure the original model in eager PyTorch beside it.")
@click.option("--baseline", type=_PATH, help="Compare with what `bench --json` printed before.")
@click.option(
    "--fail-over",
    callback=_percent,
    metavar="PERCENT",
    help="Exit with 6 where it is slower than the baseline by more.",
)
@click.option("--html", type=_PATH, help="Write a page with the figures and a plot.")
@click.option("--allow-unlisted-gpu", is_flag=True, help="Try a GPU that the engine does not list.")
@trust_option
@verb
@signer_options
def bench(output: Output, artifact: str, policy: Policy | None, **options: Any) -> None:
    """Measure ARTIFACT's latency, throughput, first call and memory on this machine."""
    if options["fail_over"] is not None and options["baseline"] is None:
        raise UsageError("--fail-over needs --baseline", remedy="give the file of an earlier `bench --json`")
    with open_artifact(artifact) as opened:
        require(opened, allow_unlisted_gpu=options["allow_unlisted_gpu"])  # before torch, which may be what is missing
        _Bench(output, opened, policy, options).run()


class _Bench:
    def __init__(self, output: Output, artifact: Artifact, policy: Policy | None, options: dict[str, Any]) -> None:
        self._output, self._artifact, self._policy, self._options = output, artifact, policy, options
        self._document: dict[str, Any] = {
            "artifact": str(artifact.path),
            "cuda_graphs": options["cuda_graphs"],
            "trust": options["trust"],
        }

    def run(self) -> None:
        from windows_side.benchmark.baseline import compare, read_baseline

        baseline = read_baseline(self._options["baseline"]) if self._options["baseline"] else None
        if self._options["first_call"] and self._policy is None:
            self._first_calls()
        self._steady()
        self._output.put(**self._document)
        if self._options["html"]:
            self._write_page()
        if baseline:
            where = str(self._options["baseline"])
            change = compare(self._document, baseline, fail_over=self._options["fail_over"], where=where)
            self._output.put(change_percent=change)
            self._output.say(f"against the baseline: {change:+.1f}%")

    def _first_calls(self) -> None:
        from windows_side.benchmark.first_call import measure_first_call

        keywords = {name: self._options[name] for name in ("device", "cuda_graphs", "allow_unlisted_gpu", "trust")}
        device = keywords.pop("device")
        with tempfile.TemporaryDirectory() as folder:
            # The first fills the cache that the second finds.
            for name in ("without_cache", "with_cache"):
                measured = measure_first_call(self._artifact.path, device, cache=Path(folder), **keywords)
                self._document.setdefault("first_call", {})[name] = asdict(measured)
                self._output.say(
                    f"fresh process {name.replace('_', ' ')}: imports {measured.imports:.2f} s, "
                    f"load {measured.load:.2f} s, first call {measured.first_call:.3f} s"
                )

    def _steady(self) -> None:
        from windows_side.benchmark.measure import GpuMemory, measure_latency, measure_throughput
        from windows_side.loader.loading import load

        import torch  # isort: skip - after what explains why it cannot be imported

        memory = GpuMemory(torch.device(self._options["device"]))
        model = load(
            self._artifact,
            self._options["device"],
            allow_unlisted_gpu=self._options["allow_unlisted_gpu"],
            policy=self._policy,
            trust=self._options["trust"],
            cuda_graphs=self._options["cuda_graphs"],
            progress=self._output.verbosity >= 0,
        )
        loaded = memory.look()
        args, kwargs = self._call(model)
        callees = [lambda: model(*args, **kwargs), *self._original(model, args, kwargs)]
        with torch.cuda.device(model.device), torch.no_grad():
            ours, *originals = measure_latency(callees, calls=self._options["calls"], warm_up=self._options["warm_up"])
            memory.look()
            back_to_back = measure_throughput(callees[0], calls=self._options["calls"])
        self._document.update(
            machine=_machine(model),
            latency=asdict(ours),
            throughput={"milliseconds": back_to_back, "calls_per_second": 1000 / back_to_back},
            gpu_memory={"loaded": loaded, "peak": memory.peak},
            original={"latency": asdict(originals[0])} if originals else None,
        )
        self._output.say(
            f"one call at a time: median {ours.median:.4f} ms, 5% to 95% {ours.p5:.4f} to {ours.p95:.4f} ms\n"
            f"back to back: {back_to_back:.4f} ms a call, {1000 / back_to_back:.0f} calls a second\n"
            f"GPU memory: {size_text(loaded)} after loading, {size_text(memory.peak)} at the peak"
        )
        if originals:
            ratio = originals[0].median / ours.median
            self._output.say(f"the original in eager PyTorch: {originals[0].median:.4f} ms, {ratio:.2f} times as long")

    def _call(self, model: LoadedModel) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from windows_side.execution.call import call_of
        from windows_side.execution.samples import read_inputs, sample_call

        source = self._options["source"]
        if source is None:
            return sample_call(self._artifact, model.device)
        return call_of(self._artifact.manifest, read_inputs(self._artifact.manifest, source), model.device)

    def _original(self, model: LoadedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The caller's own factory, which is the caller's own code."""
        name = self._options["original"]
        if name is None:
            return []
        where, remedy = f"--original {name}", "give module:factory as to `trtcross build`"
        try:
            made = call_factory(name)
        except (BuildFailedError, UsageError) as error:
            raise UsageError(
                f"the original model cannot be made: {error.problem}", where=where, remedy=remedy
            ) from error
        original = made[0] if isinstance(made, tuple) and made else made
        if not callable(getattr(original, "to", None)):
            raise UsageError("the original model is not an nn.Module", where=where, remedy=remedy)
        original = original.to(model.device)
        return [lambda: original(*args, **kwargs)]

    def _write_page(self) -> None:
        from toolchain.report.render import render
        from toolchain.report.writing import write_report
        from windows_side.reports.bench_page import bench_page

        write_report(self._options["html"], render(bench_page(self._document)))


def _machine(model: LoadedModel) -> dict[str, str]:
    import platform

    import torch

    from toolchain.host.gpu_probe import probe_gpus

    return {
        "gpu": torch.cuda.get_device_name(model.device),
        "driver": probe_gpus().driver or "unknown",
        "torch": torch.__version__,
        "runtime": model.manifest.target.runtime,
        "os": platform.platform(),
    }
