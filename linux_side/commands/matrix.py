"""``trtcross matrix``: many models, precisions and targets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from linux_side.matrix.hosts import Host, this_host
from linux_side.matrix.job import failed_error
from linux_side.matrix.local_executor import LocalExecutor
from linux_side.matrix.memory import Memory, default_budget, parse_size
from linux_side.matrix.plan import Action, Plan, Planned, make_plan
from linux_side.matrix.progress import progress_for
from linux_side.matrix.records import RunFolder, own_command
from linux_side.matrix.run import learn_weights, run_plan
from linux_side.matrix.spec import Spec, load_spec
from toolchain.errors import IncompatibleError
from toolchain.output import Report, size_text, verb

if TYPE_CHECKING:
    from linux_side.matrix.executor import Executor

F = TypeVar("F", bound=Callable[..., Any])


def _selection(function: F) -> F:
    for option in (
        click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: .matrix/NAME]"),
        click.option("--skip", multiple=True, metavar="SELECTOR", help="But not these; repeatable."),
        click.option("--only", multiple=True, metavar="SELECTOR", help="Cells, as 'resnet{18,50}-*'; repeatable."),
        click.argument("spec", type=click.Path(path_type=Path)),
    ):
        function = option(function)
    return function


def _executor_options(function: F) -> F:
    for option in (
        click.option("--ray-working-dir", type=click.Path(exists=True), help="A folder that Ray brings to each node."),
        click.option("--ray-shared", is_flag=True, help="The run folder is at the same path on every node."),
        click.option("--ray-address", help="An existing cluster.  [default: $RAY_ADDRESS]"),
        click.option("--executor", "executor_name", type=click.Choice(["local", "ray"]), default="local"),
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
    report: Report, spec: Path, only: tuple[str, ...], skip: tuple[str, ...], out: Path | None, **options: Any
) -> None:
    """Say what will be built and verified, where, and what not, and why; build nothing."""
    session = _Session(spec, out, only, skip, **options)
    made = session.plan()
    report.put(spec=str(spec), folder=str(session.folder.path), **made.to_json())
    _show(report, made)


@matrix.command()
@_selection
@_executor_options
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time.  [default: one for each processor]")
@click.option("--memory", metavar="SIZE", help="What they may take together: 16GiB.  [default: 80 % of what is free]")
@click.option("--timeout", type=click.FloatRange(1), metavar="SECONDS", help="For each build and each verification.")
@click.option("--no-cache", is_flag=True, help="Build without the build cache.")
@click.option("--strict", is_flag=True, help="Fail if a selected cell cannot be built here.")
@verb
def run(
    report: Report,
    spec: Path,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    out: Path | None,
    jobs: int | None,
    memory: str | None,
    timeout: float | None,
    no_cache: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Build and verify; go on after a failure; finished cells are not done again."""
    session = _Session(spec, out, only, skip, **options)
    budget = parse_size(memory) if memory else default_budget()
    with session.folder.hold(own_command()):
        made = session.plan()
        if learn_weights(made, session.memory):
            session.memory.save(session.folder.memory)
            made = session.plan()
        _show(report, made)
        missed = made.of(Action.IMPOSSIBLE, Action.ELSEWHERE)
        if missed and (strict or not made.of(Action.BUILD, Action.FINISHED)):
            raise _not_here(missed)
        todo = made.of(Action.BUILD)
        progress = progress_for(report, len(todo), (sys.stderr if report.as_json else sys.stdout).isatty())
        executor = session.executor(jobs or os.cpu_count() or 1, budget)
        extra = ["--no-cache"] if no_cache else []
        outcome = run_plan(made, session.folder, session.memory, executor, progress, options=extra, timeout=timeout)
    report.put(
        spec=str(spec),
        folder=str(session.folder.path),
        plan=made.to_json(),
        records=[record.model_dump(mode="json") for record in outcome.records],
    )
    passed, finished = len(outcome.records) - len(outcome.failed), len(made.of(Action.FINISHED))
    report.say(
        f"{passed} passed, {len(outcome.failed)} failed, {finished} finished before, {len(missed)} not here; "
        f"artifacts and logs: {session.folder.path}",
        level=-1,
    )
    if outcome.failed:
        raise failed_error(outcome.failed)


class _Session:
    """What plan and run have in common: the spec, its folder, what was learned, and the machines."""

    def __init__(
        self,
        spec: Path,
        out: Path | None,
        only: tuple[str, ...],
        skip: tuple[str, ...],
        *,
        again: bool,
        executor_name: str,
        ray_address: str | None,
        ray_shared: bool,
        ray_working_dir: str | None,
    ) -> None:
        self._spec: Spec = load_spec(spec)
        self.folder = RunFolder(out or Path(".matrix") / spec.stem)
        self.memory = Memory.load(self.folder.memory)
        self._only, self._skip, self._again = only, skip, again
        self._cluster: Any = None
        if executor_name == "ray":
            from linux_side.matrix.ray_cluster import Cluster

            self._cluster = Cluster(ray_address, ray_working_dir, shared=ray_shared)
        self._hosts: list[Host] = self._cluster.hosts() if self._cluster else [this_host()]

    def plan(self) -> Plan:
        return make_plan(
            self._spec,
            self._hosts,
            self.folder,
            self.memory,
            only=self._only,
            skip=self._skip,
            again=self._again,
        )

    def executor(self, workers: int, budget: int) -> Executor:
        if self._cluster:
            executor: Executor = self._cluster.executor()
            return executor
        return LocalExecutor(workers, budget)


_MARKS = {
    Action.BUILD: ("build", "green"),
    Action.FINISHED: ("done", "cyan"),
    Action.ELSEWHERE: ("elsewhere", "yellow"),
    Action.IMPOSSIBLE: ("impossible", "red"),
    Action.EXCLUDED: ("excluded", "bright_black"),
}


def _show(report: Report, made: Plan) -> None:
    width = max(len(item.cell.id) for item in made.cells)
    for item in made.cells:
        word, color = _MARKS[item.action]
        mark = click.style(f"{word:10}", fg=color)
        report.say(f"{mark} {item.cell.id:{width}}  {_words(item)}")
        for note in _notes(item):
            report.say(f"{'':10} {'':{width}}    {note}")


def _words(item: Planned) -> str:
    if item.action is not Action.BUILD or item.host is None:
        return item.reason or ""
    return f"{item.host.name}, to {item.level}; about {size_text(item.memory)} of memory, by {item.memory_from}"


def _notes(item: Planned) -> list[str]:
    if item.elsewhere:
        return [f"{item.elsewhere.level} on {item.elsewhere.host.name}"]
    return [item.unverified] if item.unverified else []


def _not_here(missed: list[Planned]) -> IncompatibleError:
    lines = [f"{item.cell.id}: {item.reason}" for item in missed]
    return IncompatibleError(
        f"{len(missed)} cell(s) cannot be built here",
        where="\n    ".join(lines),
        remedy="build them where there is what they need, or leave them out with --skip",
    )
