"""``trtcross verify``: integrity, structure, loading, numbers; a page for people and JUnit XML for CI."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from toolchain.checker.structure import LEVELS
from toolchain.cli.options import report_signer
from toolchain.cli.output import Output, verb
from toolchain.cli.several import artifacts_argument, each, expanded
from toolchain.errors import TrtcrossError, UsageError
from toolchain.formats.parts import is_converted
from toolchain.io.places import require_own_place
from toolchain.progress import working
from toolchain.report.writing import require_writable
from toolchain.signing.artifact import require_signature_of
from windows_side.commands.load_options import load_options
from windows_side.options import RunOptions
from windows_side.reports.verify_reports import Reports, read_latency
from windows_side.verification.levels import StepResult, Verification

_PATH = click.Path(path_type=Path)

LEVEL_STEPS = {
    "signature": "checking who signed every byte",
    "integrity": "reading every byte",
    "structure": "comparing graph, engines and manifest",
    "load": "loading the engines",
    "numbers": "running the golden inputs",
}


@click.command()
@artifacts_argument
@click.option("--level", type=click.Choice(LEVELS), default="numbers", show_default=True, help="How far to go.")
@click.option("--html", type=_PATH, help="Write a page for people: one file that needs no network.")
@click.option("--junit", type=_PATH, help="Write JUnit XML for CI: one test case a level.")
@click.option("--latency", type=_PATH, help="What `bench --json` printed, to be shown on the page.")
@verb
@load_options("runtime")
def verify(
    output: Output,
    artifacts: tuple[str, ...],
    level: str,
    html: Path | None,
    junit: Path | None,
    latency: Path | None,
    loading: RunOptions,
) -> None:
    """Check each ARTIFACT level by level: integrity, structure, load, numbers; each includes those before it.

    Of an ONNX file or an engine folder that `convert` wrote, integrity and structure: every byte, compared with what
    the artifact's manifest in it makes.

    The reports are written whatever the outcome, and before loading already, so that a crash in a driver leaves one.
    """
    if (html or junit or latency) and len(expanded(artifacts)) > 1:
        raise UsageError(
            "a report is of one artifact", where="--html, --junit, --latency", remedy="verify one artifact at a time"
        )
    each(output, artifacts, lambda part, artifact: _verify(part, artifact, level, html, junit, latency, loading))


def _verify(
    output: Output,
    artifact: str,
    level: str,
    html: Path | None,
    junit: Path | None,
    latency: Path | None,
    loading: RunOptions,
) -> None:
    if is_converted(Path(artifact)):
        _verify_converted(output, Path(artifact), loading, reports=bool(html or junit or latency))
        return
    _require_places(artifact, html, junit, latency)
    reports = Reports(html, junit, read_latency(latency) if latency else None)
    verification = Verification(artifact, level, loading, about_machine=bool(html or junit))

    def before(level: str) -> None:
        if level == "load":
            reports.write(verification)
        steps.close()
        steps.enter_context(working(f"{level}: {LEVEL_STEPS[level]}", _total(artifact, level)))

    try:
        with ExitStack() as steps:
            for result in verification.run(before):
                steps.close()
                _say(output, result)
    finally:
        _write(reports, verification, output)
        output.put(artifact=artifact, trust=loading.trust, levels=[result.to_json() for result in verification.results])
        if verification.machine:
            output.put(
                machine=verification.machine,
                requirements=[item.to_json() for item in verification.requirements],
            )
    if verification.error:
        raise verification.error


def _verify_converted(output: Output, path: Path, loading: RunOptions, *, reports: bool) -> None:
    """Verifies an ONNX file or an engine folder that ``convert`` wrote."""
    if reports:
        raise UsageError(
            "a report is of an artifact",
            where=str(path),
            remedy="leave out --html, --junit and --latency, or use --json",
        )
    from toolchain.formats.convert import verify_converted

    output.put(artifact=str(path))
    try:
        converted = verify_converted(path)
        if loading.policy:
            signer = require_signature_of(converted.source.manifest_sha256, converted.signed, loading.policy)
            report_signer(output, signer)
    except TrtcrossError:
        output.say("integrity, structure: FAILED")
        raise
    manifest = converted.source.manifest
    output.put(
        format=converted.format,
        model=manifest.model.name,
        manifest_sha256=converted.source.manifest_sha256,
        engines=[engine.sha256 for engine in manifest.engines],
        files=[str(file) for file in converted.files],
    )
    output.say(f"integrity, structure: ok, every byte of {len(converted.files)} file(s)")
    output.say(f"of the artifact of {manifest.model.name} with the manifest {converted.source.manifest_sha256}")
    if converted.format == "onnx":
        output.say("numbers: verify the artifact itself with --runtime onnxruntime")


def _total(artifact: str, level: str) -> int | None:
    """Returns the bytes that a level reads, where it reads the whole file once; None elsewhere."""
    path = Path(artifact)
    return path.stat().st_size if level in ("signature", "integrity", "load") and path.is_file() else None


def _require_places(artifact: str, html: Path | None, junit: Path | None, latency: Path | None) -> None:
    """Refuses reports that cannot be written, or that would overwrite each other or a file that is read.

    Raises:
        UsageError: naming the first such report.
    """
    taken = [artifact, latency]
    for option, path in (("--html", html), ("--junit", junit)):
        if path is not None:
            require_own_place(path, *taken, where=option)
            taken.append(path)
            require_writable(path)


def _say(output: Output, result: StepResult) -> None:
    if isinstance(result.error, UsageError):  # there is no such file, so no level of it failed
        return
    output.say(f"{result.level}: {'ok' if result.passed else 'FAILED'}  ({result.seconds:.2f} s)")
    if "signer" in result.details:
        report_signer(output, result.details["signer"])
    for item in result.details.get("outputs", ()):
        output.say(
            f"  sample {item['sample']} {item['title']}: {'ok' if item['within'] else 'WRONG'}, relative error "
            f"{_figure(item['relative_l2'])}, max {_figure(item['max_relative'])}, "
            f"cosine {_figure(item['cosine'], '.6f')}, worst element at {tuple(item['worst_index'])}"
            + (
                f"; the precision alone costs {item['precision_error']:.2e}"
                if item["precision_error"] is not None
                else ""
            )
        )
    for text in result.details.get("warnings", ()):
        output.say(f"warning: {text}", level=-1)


def _figure(value: float | None, form: str = ".2e") -> str:
    return "not finite" if value is None else format(value, form)


def _write(reports: Reports, verification: Verification, output: Output) -> None:
    """Writes the reports. An error in writing them is only a warning where the artifact itself has failed."""
    try:
        reports.write(verification)
    except UsageError as error:
        if verification.error is None:
            raise
        output.say(f"warning: {error}", level=-1)
