"""Runs cells on this machine, several at a time within a memory budget."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from typing import Any

from linux_side.driver.leaf import Leaf, Outcome
from linux_side.driver.tree import Tree
from linux_side.matrix.execution.job import Built, Job, OnPhase, begin_log, lost_record, verified
from linux_side.matrix.execution.processes import Cancelled, Processes
from linux_side.matrix.records import CellRecord
from toolchain.errors import BuildFailedError


class LocalExecutor:
    """Builds cells in processes that share common work, and verifies each in a child process.

    Args:
        workers: how many cells run at a time.
        budget: bytes that the running cells may take together. A cell that takes more runs alone.
    """

    def __init__(self, workers: int, budget: int) -> None:
        self.workers = workers
        self.budget = budget

    def run(self, jobs: Sequence[Job], on_phase: OnPhase) -> Generator[CellRecord, None, None]:
        processes, cells = Processes(), dict[Leaf, _Cell]()
        for job in jobs:
            try:
                begin_log(job)
            except OSError as error:
                yield _lost(job, error)
            else:
                cell = _Cell(job, on_phase)
                cells[cell.leaf] = cell

        def finish(leaf: Leaf, outcome: Outcome) -> CellRecord:
            cell = cells[leaf]
            try:
                cell.begin()  # a cell from the cache has not begun yet
                return verified(cell.job, cell.started, _built(outcome), processes, on_phase)
            except Cancelled:
                raise
            except Exception as error:  # noqa: BLE001 - a full disk or a bug must fail one cell only
                return _lost(cell.job, error)

        timeout = next((job.timeout for job in jobs), None)
        tree = Tree(list(cells), finish, workers=self.workers, budget=self.budget, timeout=timeout)
        with closing(tree.run()) as records:
            try:
                yield from records
            finally:
                processes.stop()


class _Cell:
    """A cell of a run, as a leaf of the tree of builds.

    Attributes:
        job: the cell's job.
        started: when its own work began; until then, when the run did.
        leaf: its build.
    """

    def __init__(self, job: Job, on_phase: OnPhase) -> None:
        self.job, self._on_phase = job, on_phase
        self.started = datetime.now(timezone.utc)
        self._begun = False
        cell = job.cell
        self.leaf = Leaf(
            cell.model, job.artifact, cell.options(), job.log, job.memory, cache=job.cache, listener=self.hear
        )

    def begin(self) -> None:
        if not self._begun:
            self._begun, self.started = True, datetime.now(timezone.utc)
            self._on_phase(self.job.cell.id, "start")

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "start":
            self.begin()
            self._on_phase(self.job.cell.id, event["phase"])
        elif event["event"] == "warning":
            with self.job.log.open("ab") as log:
                log.write(f"warning: {event['text']}\n".encode(errors="replace"))


def _built(outcome: Outcome) -> Built:
    if outcome.artifact is None:
        return Built(outcome.error, None, outcome.seconds, outcome.peak)
    with outcome.artifact as artifact:
        return Built(None, artifact.manifest.model_dump(), outcome.seconds, outcome.peak)


def _lost(job: Job, error: Exception) -> CellRecord:
    problem = BuildFailedError(
        f"the cell could not be run: {type(error).__name__}: {error}", where=job.cell.id, remedy="see the message"
    )
    return lost_record(job, problem)
