"""``trtcross bench``: latency, throughput, first call and memory on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.cli.offers import files
from toolchain.cli.output import Output, verb
from toolchain.errors import UsageError
from toolchain.host.requirements import Requirement
from toolchain.io.places import require_own_place
from toolchain.report.render import render
from toolchain.report.writing import write_report
from toolchain.text import size_text
from windows_side.benchmark.baseline import compare, read_baseline
from windows_side.benchmark.figures import BenchmarkOptions, Steady
from windows_side.benchmark.first_call import FirstCall, measure_first_calls
from windows_side.commands.load_options import load_options
from windows_side.options import RunOptions
from windows_side.preflight.admission import admit
from windows_side.preflight.requirements import Runtime
from windows_side.preflight.runtimes import choose_runtime
from windows_side.reports.bench_page import bench_page


def _percent(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Parses ``10`` or ``10%``."""
    try:
        return None if value is None else float(value.removesuffix("%"))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no percentage, such as 10 or 10%") from error


_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("artifact", shell_complete=files)
@click.option("--input", "source", type=_PATH, help="Tensors by input name; else golden I/O, else random ones.")
@click.option("--calls", type=click.IntRange(min=5), default=200, show_default=True, help="Calls that are measured.")
@click.option("--warm-up", type=click.IntRange(min=1), default=20, show_default=True, help="Calls before those.")
@click.option("--first-call/--no-first-call", default=True, help="Time fresh processes, without and with the cache.")
@click.option(
    "--original",
    metavar="MODULE:FACTORY",
    shell_complete=files,
    help="Measure the original model in eager PyTorch beside it.",
)
@click.option("--baseline", type=_PATH, help="Compare with what `bench --json` printed before.")
@click.option(
    "--fail-over",
    callback=_percent,
    metavar="PERCENT",
    help="Exit with 6 where it is slower than the baseline by more.",
)
@click.option("--html", type=_PATH, help="Write a page with the figures and a plot.")
@verb
@load_options("cuda_graphs", "kernels", "runtime")
def bench(
    output: Output,
    artifact: str,
    loading: RunOptions,
    first_call: bool,
    baseline: Path | None,
    fail_over: float | None,
    html: Path | None,
    **measured: Any,
) -> None:
    """Measure ARTIFACT's latency, throughput, first call and memory on this machine."""
    if fail_over is not None and baseline is None:
        raise UsageError("--fail-over needs --baseline", remedy="give the file of an earlier `bench --json`")
    if html:
        require_own_place(html, artifact, measured["source"], baseline, where="--html")
    earlier = read_baseline(baseline) if baseline else None
    with open_artifact(artifact) as opened:
        runtime = choose_runtime(opened, loading.runtime)
        doubts = admit(opened, loading, runtime)  # before torch, which may be what is missing
        chosen = BenchmarkOptions(loading.model_copy(update={"runtime": runtime.value}), **measured)
        document: dict[str, Any] = {
            "artifact": str(opened.path),
            "runtime": runtime.value,
            "cuda_graphs": loading.cuda_graphs,
            "trust": loading.trust,
        }
        if first_call and loading.policy is None:
            for name, first in measure_first_calls(opened, chosen.loading):
                document.setdefault("first_call", {})[name] = asdict(first)
                _say_first(output, name, first)
        steady = _steady(opened, doubts, chosen, runtime)
    document.update(steady.to_json())
    _say_steady(output, steady)
    output.put(**document)
    if html:
        write_report(html, render(bench_page(document)))
    if earlier:
        change = compare(document, earlier, fail_over=fail_over, where=str(baseline))
        output.put(change_percent=change)
        output.say(f"against the baseline: {change:+.1f}%")


def _steady(artifact: Artifact, doubts: list[Requirement], options: BenchmarkOptions, runtime: Runtime) -> Steady:
    if runtime is not Runtime.TORCH and options.original:
        raise UsageError(
            "the original model runs in PyTorch", where="--original", remedy="measure it with --runtime torch"
        )
    if runtime is Runtime.ONNXRUNTIME:
        from windows_side.benchmark.onnx_run import measure_onnx

        return measure_onnx(artifact, options)
    if runtime is Runtime.TENSORRT:
        from windows_side.benchmark.session_run import measure_session

        return measure_session(artifact, options)
    from windows_side.benchmark.run import measure_steady

    return measure_steady(artifact, doubts, options)


def _say_first(output: Output, name: str, measured: FirstCall) -> None:
    output.say(
        f"fresh process {name.replace('_', ' ')}: imports {measured.imports:.2f} s, "
        f"load {measured.load:.2f} s, first call {measured.first_call:.3f} s"
    )


def _say_steady(output: Output, steady: Steady) -> None:
    ours, back_to_back = steady.latency, steady.back_to_back
    output.say(
        f"one call at a time: median {ours.median:.4f} ms, 5% to 95% {ours.p5:.4f} to {ours.p95:.4f} ms\n"
        f"back to back: {back_to_back:.4f} ms a call, {1000 / back_to_back:.0f} calls a second\n"
        f"GPU memory: {size_text(steady.loaded)} after loading, {size_text(steady.peak)} at the peak"
    )
    if steady.original:
        ratio = steady.original.median / ours.median
        output.say(f"the original in eager PyTorch: {steady.original.median:.4f} ms, {ratio:.2f} times as long")
