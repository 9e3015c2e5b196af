"""``trtcross matrix``: many models, precisions and targets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import click

from linux_side.matrix.execution.job import failed_error
from linux_side.matrix.execution.progress import progress_for
from linux_side.matrix.execution.run import learn_weights, run_plan
from linux_side.matrix.planning.hosts import this_host
from linux_side.matrix.planning.memory import Memory, default_budget
from linux_side.matrix.planning.plan import Action, Planned, make_plan
from linux_side.matrix.planning.plan_text import show_plan
from linux_side.matrix.records import RunFolder, own_command
from linux_side.matrix.session import MatrixRun, run_folder
from linux_side.matrix.spec.spec import load_spec
from toolchain.cli.options import SizeType
from toolchain.cli.output import Output, verb
from toolchain.errors import IncompatibleError, UsageError
from toolchain.host.installed import version_of
from toolchain.report.writing import write_report
from toolchain.targets import Backend

_PATH = click.Path(path_type=Path)

F = TypeVar("F", bound=Callable[..., Any])


def _spec(function: F) -> F:
    out = click.option("--out", type=_PATH, help="The run folder.  [default: .matrix/NAME]")
    return click.argument("spec", type=_PATH)(out(function))


def _selection(function: F) -> F:
    only = click.option("--only", multiple=True, metavar="SELECTOR", help="Cells, as 'resnet{18,50}-*'; repeatable.")
    skip = click.option("--skip", multiple=True, metavar="SELECTOR", help="But not these; repeatable.")
    return _spec(only(skip(function)))


def _executor_options(function: F) -> F:
    for option in (
        click.option("--ray-working-dir", type=click.Path(exists=True), help="A folder that Ray brings to each node."),
        click.option("--ray-shared", is_flag=True, help="The run folder is at the same path on every node."),
        click.option("--ray-address", help="An existing cluster.  [default: $RAY_ADDRESS]"),
        click.option(
            "--executor",
            "executor_name",
            type=click.Choice(["local", "ray"]),
            default="local",
            help="This machine, or a Ray cluster.",
        ),
        click.option("--again", is_flag=True, help="Build finished cells once more."),
    ):
        function = option(function)
    return function


@click.group()
def matrix() -> None:
    """Build and verify many models for many targets, as SPEC, a matrix.toml, says."""


@matrix.command()
@_selection
@_executor_options
@verb
def plan(
    output: Output, spec: Path, only: tuple[str, ...], skip: tuple[str, ...], out: Path | None, **options: Any
) -> None:
    """Say what will be built and verified, where, and what not, and why; build nothing."""
    output.put(verb="matrix plan")
    with MatrixRun(output, spec, out, only, skip, **options) as session:
        made = session.plan()
        output.put(spec=str(spec), folder=str(session.folder.path), **made.to_json())
    show_plan(output, made)


@matrix.command()
@_selection
@_executor_options
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time.  [default: one for each processor]")
@click.option(
    "--memory",
    type=SizeType(minimum=1),
    help="What they may take together: 16GiB (or 16G), 16GB is decimal.  [default: 80 % of what is free]",
)
@click.option("--timeout", type=click.FloatRange(1), metavar="SECONDS", help="For each build and each verification.")
@click.option("--no-cache", is_flag=True, help="Build without the build cache.")
@click.option("--strict", is_flag=True, help="Fail if a selected cell cannot be built here.")
@verb
def run(
    output: Output,
    spec: Path,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    out: Path | None,
    jobs: int | None,
    memory: int | None,
    timeout: float | None,
    no_cache: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Build and verify; go on after a failure; finished cells are not done again."""
    output.put(verb="matrix run")
    budget = memory or default_budget()
    with MatrixRun(output, spec, out, only, skip, **options) as session, session.folder.hold(own_command()):
        made = session.plan()
        if learn_weights(made, session.memory):
            session.memory.save(session.folder.memory)
            made = session.plan()
        show_plan(output, made)
        missed = made.of(Action.IMPOSSIBLE, Action.ELSEWHERE)
        if missed and (strict or not made.of(Action.BUILD, Action.FINISHED)):
            raise _not_here(missed)
        todo = made.of(Action.BUILD)
        progress = progress_for(output, len(todo), (sys.stderr if output.as_json else sys.stdout).isatty())
        executor = session.executor(jobs or os.cpu_count() or 1, budget)
        extra = ["--no-cache"] if no_cache else []
        outcome = run_plan(made, session.folder, session.memory, executor, progress, options=extra, timeout=timeout)
    output.put(
        spec=str(spec),
        folder=str(session.folder.path),
        plan=made.to_json(),
        records=[record.model_dump(mode="json") for record in outcome.records],
    )
    passed, finished = len(outcome.records) - len(outcome.failed), len(made.of(Action.FINISHED))
    output.say(
        f"{passed} passed, {len(outcome.failed)} failed, {finished} finished before, {len(missed)} not here; "
        f"artifacts and logs: {session.folder.path}",
        level=-1,
    )
    if outcome.failed:
        raise failed_error(outcome.failed)


@matrix.command("report")
@_spec
@click.option("--html", type=_PATH, help="The page.  [default: report.html in the run folder]")
@click.option("--junit", type=_PATH, help="JUnit XML, for CI.")
@click.option("--markdown", type=_PATH, help="Markdown, for a job's summary.")
@click.option(
    "--results",
    multiple=True,
    metavar="NAME=FOLDER",
    help="What `verify --json` and `bench --json` said elsewhere, in files ID.json.",
)
@click.option("--baseline", type=_PATH, help="Compare with this report.json, not with the last report.")
@verb
def report_command(
    output: Output,
    spec: Path,
    out: Path | None,
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
    results: tuple[str, ...],
    baseline: Path | None,
) -> None:
    """Write how it went: a page for people, and JUnit XML and Markdown for CI."""
    output.put(verb="matrix report")
    from linux_side.matrix.report import change
    from linux_side.matrix.report import html as page
    from linux_side.matrix.report import junit as xml
    from linux_side.matrix.report import markdown as text
    from linux_side.matrix.report.summary import Summary, summarize

    folder, loaded = run_folder(spec, out), load_spec(spec)
    if not folder.path.is_dir():
        raise UsageError(
            "there is nothing to report: this spec was never run here",
            where=str(folder.path),
            remedy="`trtcross matrix run` first, or name its folder with --out",
        )
    made = make_plan(loaded, [this_host()], folder, Memory.load(folder.memory))
    when = datetime.now(timezone.utc).isoformat(sep=" ", timespec="minutes")
    summary = Summary(str(spec), summarize(made, folder, _legs(folder, results)), when, _versions())
    now = change.snapshot(summary)
    before = change.read_baseline(baseline) if baseline else change.remember(folder.path, now)
    changed = change.changes(before, now)
    since = str(before.get("when")) if before else None
    html = html or folder.path / "report.html"
    write_report(html, page.html_page(summary, changed, since))
    if junit:
        write_report(junit, xml.matrix_junit(summary))
    if markdown:
        write_report(markdown, text.markdown(summary, changed))
    output.put(html=str(html), snapshot=now, changes=[asdict(item) for item in changed])
    output.say(f"{page.verdict(summary).headline}: {html}", level=-1)


def _legs(folder: RunFolder, results: tuple[str, ...]) -> dict[str, Path]:
    own = folder.path / "legs"
    found = {path.name: path for path in sorted(own.iterdir()) if path.is_dir()} if own.is_dir() else {}
    for item in results:
        name, equals, path = item.partition("=")
        if not equals or not Path(path).is_dir():
            raise UsageError(
                f"{item!r} names no folder of results", where="--results", remedy="write NAME=FOLDER: windows=results"
            )
        found[name] = Path(path)
    return found


def _versions() -> dict[str, str]:
    names = ("trtcross", "torch", *(name for backend in Backend for name in backend.distributions))
    return {name: version for name in names if (version := version_of(name))}


def _not_here(missed: list[Planned]) -> IncompatibleError:
    lines = [f"{item.cell.id}: {item.reason}" for item in missed]
    return IncompatibleError(
        f"{len(missed)} cell(s) cannot be built here",
        where="\n    ".join(lines),
        remedy="build them where there is what they need, or leave them out with --skip",
    )
