"""``trtcross matrix``: many models, precisions and targets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from linux_side.driver.room import default_budget
from linux_side.driver.termination import ends_in_order
from linux_side.matrix.execution.job import failed_error
from linux_side.matrix.execution.progress import progress_for
from linux_side.matrix.execution.run import learn_weights, run_plan
from linux_side.matrix.planning.plan import Action, Planned
from linux_side.matrix.planning.plan_text import show_plan
from linux_side.matrix.records import own_command
from linux_side.matrix.session import RayOptions, open_matrix, run_folder
from toolchain.cli.group import VerbGroup
from toolchain.cli.options import SizeType
from toolchain.cli.output import Output, verb
from toolchain.errors import IncompatibleError, UsageError
from toolchain.io.places import require_own_place
from toolchain.progress import working

_PATH = click.Path(path_type=Path)

F = TypeVar("F", bound=Callable[..., Any])


def _spec(function: F) -> F:
    out = click.option("--out", type=_PATH, help="The run folder.  [default: .matrix/NAME]")
    return click.argument("spec", type=_PATH)(out(function))


def _selection(function: F) -> F:
    only = click.option("--only", multiple=True, metavar="SELECTOR", help="Cells, as 'resnet{18,50}-*'; repeatable.")
    skip = click.option("--skip", multiple=True, metavar="SELECTOR", help="But not these; repeatable.")
    return _spec(only(skip(function)))


def _executor_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--executor`` and its options to a verb, whose function receives them as one argument, ``ray``."""

    @click.option("--again", is_flag=True, help="Build finished cells once more.")
    @click.option(
        "--executor", type=click.Choice(["local", "ray"]), default="local", help="This machine, or a Ray cluster."
    )
    @click.option("--ray-address", help="An existing cluster.  [default: $RAY_ADDRESS]")
    @click.option("--ray-shared", is_flag=True, help="The run folder is at the same path on every node.")
    @click.option(
        "--ray-working-dir",
        type=click.Path(exists=True, path_type=Path),
        help="A folder that Ray brings to each node.",
    )
    @wraps(function)
    def command(
        *, executor: str, ray_address: str | None, ray_shared: bool, ray_working_dir: Path | None, **options: Any
    ) -> None:
        ray = RayOptions(ray_address, ray_shared, ray_working_dir) if executor == "ray" else None
        function(ray=ray, **options)

    return command


@click.group(cls=VerbGroup)
def matrix() -> None:
    """Build and verify many models for many targets, described by SPEC, a matrix.toml."""


@matrix.command()
@_selection
@_executor_options
@verb
def plan(
    output: Output,
    spec: Path,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    out: Path | None,
    again: bool,
    ray: RayOptions | None,
) -> None:
    """Show what will be built and verified, where, and why the rest will not; build nothing."""
    output.put(verb="matrix plan")
    with open_matrix(spec, out, ray, quiet_stdout=output.as_json) as session:
        with working("planning"):
            made = session.plan(only=only, skip=skip, again=again)
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
    again: bool,
    ray: RayOptions | None,
) -> None:
    """Build and verify the cells; a failure does not stop the others, and finished cells are skipped."""
    output.put(verb="matrix run")
    budget = memory or default_budget()
    selection = {"only": only, "skip": skip}
    with open_matrix(spec, out, ray, quiet_stdout=output.as_json) as session, session.folder.hold(own_command()):
        with working("planning, and weighing the models"):
            made = session.plan(**selection, again=again)
            if learn_weights(made, session.memory, session.base):
                session.memory.save(session.folder.memory)
                made = session.plan(**selection, again=again)
        show_plan(output, made)
        missed = made.of(Action.IMPOSSIBLE, Action.ELSEWHERE)
        if missed and (strict or not made.of(Action.BUILD, Action.FINISHED)):
            raise _not_here(missed)
        todo = made.of(Action.BUILD)
        progress = progress_for(output, len(todo))
        executor = session.executor(jobs or os.cpu_count() or 1, budget)
        with ends_in_order():
            outcome = run_plan(
                made, session.folder, session.memory, executor, progress, cache=not no_cache, timeout=timeout
            )
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
    help="The output of `verify --json` and `bench --json` on another machine, in files ID.json.",
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
    """Report the outcome: a page for people, and JUnit XML and Markdown for CI."""
    output.put(verb="matrix report")
    taken = [spec, baseline]
    for option, path in (("--html", html), ("--junit", junit), ("--markdown", markdown)):
        if path is not None:
            require_own_place(path, *taken, where=option)
            taken.append(path)
    from linux_side.matrix.report.reports import ReportFiles, write_reports

    folder = run_folder(spec, out)
    files = ReportFiles(html or folder.path / "report.html", junit, markdown)
    with working("writing the reports"):
        written = write_reports(spec, folder, files, legs=_results(results), baseline=baseline)
    output.put(html=str(files.html), snapshot=written.snapshot, changes=[asdict(change) for change in written.changes])
    output.say(f"{written.headline}: {files.html}", level=-1)


def _results(texts: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).is_dir():
            raise UsageError(
                f"{text!r} names no folder of results", where="--results", remedy="write NAME=FOLDER: windows=results"
            )
        found[name] = Path(path)
    return found


def _not_here(missed: list[Planned]) -> IncompatibleError:
    lines = [f"{item.cell.id}: {item.reason}" for item in missed]
    return IncompatibleError(
        f"{len(missed)} cell(s) cannot be built here",
        where="\n    ".join(lines),
        remedy="build them on a machine that has what they need, or leave them out with --skip",
    )
