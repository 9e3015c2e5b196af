"""``trtcross build``: compiles a model into an artifact."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click
from click.core import ParameterSource

from linux_side.driver.building import build as build_artifact
from linux_side.driver.many import build_many
from linux_side.driver.variants import variants, varied_names
from linux_side.options import BuildOptions
from toolchain.artifact import Artifact
from toolchain.cli.fields import field_options
from toolchain.cli.offers import files
from toolchain.cli.output import Output, verb
from toolchain.errors import TrtcrossError, UsageError
from toolchain.progress import reach, working
from toolchain.text import size_text

PHASES = {
    "import": "importing torch",
    "tensorrt": "importing Torch-TensorRT",
    "export": "exporting, with golden outputs",
    "cache": "looking in the build cache",
    "precision": "choosing what computes in halves",
    "digest": "taking the digest of graph and weights",
    "lower": "lowering and partitioning",
    "convert": "converting: TensorRT builds the engines",
    "serialize": "serializing the program",
    "write": "writing the artifact",
}


@click.command()
@click.argument("model", shell_complete=files)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .pt2 file to write.")
@click.option(
    "--many",
    multiple=True,
    metavar="NAME=VALUE,...",
    help="Build for each value of target, backend, gpus, precision or dynamic; -o names {NAME}. Repeatable.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="With --many: builds at a time.  [default: one for each processor]"
)
@field_options(BuildOptions)
@click.option("--cache/--no-cache", default=True, show_default=True, help="Use the build cache (see `store`).")
@verb
def build(
    output: Output, model: str, out: Path, many: tuple[str, ...], jobs: int | None, cache: bool, **options: Any
) -> None:
    """Compile MODEL, a .pt2 exported program, module:factory or ./file.py:factory, into an artifact.

    With --task, MODEL is a Hugging Face model folder.

    A factory is a function without arguments that returns (nn.Module, example_args) or (nn.Module, example_args,
    example_kwargs).

    --many precision=fp32,fp16 --many target=windows-x86_64,linux-x86_64 -o 'model-{precision}-{target}.pt2' writes four
    artifacts, and does their common work once.
    """
    if many:
        _build_many(output, model, variants(many, _not_varied(many, options), str(out)), jobs, cache)
        return
    if jobs is not None:
        raise UsageError("there is only one build to run", where="--jobs", remedy="leave it out, or add --many")
    warnings: list[str] = []

    def progress(event: dict[str, Any]) -> None:
        output.send(**event)
        phase = event.get("phase", "")
        if event["event"] == "start":
            if not output.bars:
                output.say(f"[{phase}] {PHASES[phase]} ...")
            phases.enter_context(working(f"[{phase}] {PHASES[phase]}", line=False))
        elif event["event"] == "progress":
            reach(event["done"], event["total"])
        elif event["event"] == "end":
            phases.close()
            output.say(f"[{phase}] {PHASES[phase] + ': ' if output.bars else 'done in '}{event['seconds']:.1f} s")
        elif event["event"] == "cached":
            output.say(f"[cache] it was built before: {event['key']}")
        elif event["event"] == "warning":
            warnings.append(event["text"])
            output.say(f"warning: {event['text']}", level=-1)

    with _log(output) as log, ExitStack() as phases:
        try:
            artifact = build_artifact(
                model, out, options=BuildOptions(**options), cache=cache, progress=progress, log=log
            )
        except TrtcrossError:
            _show_tensorrt_errors(output, log)
            raise
    output.put(warnings=warnings)
    with artifact:
        _report(output, artifact)


def _not_varied(many: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that do not vary.

    Raises:
        UsageError: an option that varies is also given by itself.
    """
    context, varied = click.get_current_context(), varied_names(many)
    for name in varied:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{name} is given as an option and in --many", where="--many", remedy="give it once")
    return {name: value for name, value in options.items() if name not in varied}


def _build_many(output: Output, model: str, builds: dict[Path, BuildOptions], jobs: int | None, cache: bool) -> None:
    lock = threading.Lock()
    warnings: dict[str, list[str]] = {str(out): [] for out in builds}

    def progress(event: dict[str, Any]) -> None:
        with lock:
            output.send(**event)
            if event["event"] == "start":
                output.say(f"  {event['out']}: [{event['phase']}] {PHASES[event['phase']]} ...")
            elif event["event"] == "cached":
                output.say(f"  {event['out']}: [cache] it was built before: {event['key']}")
            elif event["event"] == "warning":
                warnings[event["out"]].append(event["text"])
                output.say(f"warning: {event['out']}: {event['text']}", level=-1)

    with _log(output) as log:
        done = build_many(model, builds, cache=cache, jobs=jobs, progress=progress, log=log)
    parts, failed = [], []
    for built in done:
        part = output.part()
        part.put(artifact=str(built.out), warnings=warnings[str(built.out)])
        if built.artifact:
            with built.artifact:
                _report(part, built.artifact, setup=False)
        elif built.error:
            part.fail(built.error)
            failed.append(built)
        parts.append(part.document)
    output.put(artifacts=parts)
    if failed and (first := failed[0].error):
        raise type(first)(
            f"{len(failed)} of {len(done)} builds failed",
            where=", ".join(str(built.out) for built in failed),
            remedy="see the error of each above",
        )


def _log(output: Output) -> IO[bytes]:
    if output.verbosity > 0:
        return open(sys.stderr.fileno(), "ab", buffering=0, closefd=False)
    return tempfile.TemporaryFile()


def _show_tensorrt_errors(output: Output, log: IO[bytes]) -> None:
    if not log.readable():
        return
    log.seek(0)
    for line in log.read().decode(errors="replace").splitlines():
        if "[TRT]" in line or "ERROR: [Torch-TensorRT" in line:
            output.say(line)


def _report(output: Output, artifact: Artifact, *, setup: bool = True) -> None:
    """Reports what was built.

    Args:
        output: where to report it.
        artifact: the new artifact.
        setup: whether to report how to set up a machine for it.
    """
    manifest, size = artifact.manifest, artifact.path.stat().st_size
    output.put(artifact=str(artifact.path), size=size, manifest=manifest.model_dump())
    output.say(f"wrote {artifact.path} ({size_text(size)}): {len(artifact.engines)} engine(s)", level=-1)
    covered = manifest.coverage
    output.say(f"{covered.in_engines} of {covered.operators} operators run in TensorRT")
    for item in manifest.fallback:
        output.say(f"  in PyTorch: {item.operator} x{item.count}")
    if not manifest.stock_readable:
        output.say("note: too big for torch.export.load; load it with trtcross", level=-1)
    if not setup:
        return
    output.say("to set up a machine for it:")
    for line in manifest.install:
        output.say(f"  {line}")
