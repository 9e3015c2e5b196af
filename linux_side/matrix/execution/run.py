"""Runs the cells that a plan builds here, and records each cell as soon as it is done."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from linux_side.matrix.execution.executor import Executor
from linux_side.matrix.execution.job import Job, was_killed
from linux_side.matrix.execution.progress import RunProgress
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.plan import Action, Plan, Planned
from linux_side.matrix.planning.weights import estimate_weights
from linux_side.matrix.records import CellRecord, RunFolder
from toolchain.errors import BuildFailedError


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        records: the records of the cells that ran.
    """

    records: list[CellRecord]

    @property
    def failed(self) -> list[CellRecord]:
        """The records of the failed cells."""
        return [record for record in self.records if record.state == "failed"]


def learn_weights(plan: Plan, memory: Memory, base: Path = Path()) -> bool:
    """Determines the size of models whose builds' memory cannot be estimated otherwise.

    Args:
        plan: the plan; only the models of cells to build are considered.
        memory: the known figures, which are extended.
        base: the folder in which modules are looked up.

    Returns:
        Whether anything was added to ``memory``.
    """
    unknown = {
        item.cell.model
        for item in plan.of(Action.BUILD)
        if item.cell.id not in memory.peaks and not memory.weights_of(item.cell) and ":" in item.cell.model
    }
    found = estimate_weights(sorted(unknown), base) if unknown else {}
    memory.weights.update(found)
    return bool(found)


def run_plan(
    plan: Plan,
    folder: RunFolder,
    memory: Memory,
    executor: Executor,
    progress: RunProgress,
    *,
    cache: bool = True,
    timeout: float | None = None,
) -> Outcome:
    """Builds and verifies the plan's cells.

    Args:
        plan: the plan.
        folder: the run folder, which the caller must hold.
        memory: the known memory figures, which are extended and saved after each cell.
        executor: runs the cells.
        progress: shows the progress.
        cache: whether builds use the build cache.
        timeout: seconds for each build, and for each verification; None for no limit.

    Raises:
        BuildFailedError: a record cannot be written.
    """
    items = {item.cell.id: item for item in plan.of(Action.BUILD)}
    jobs = [_job(item, folder, cache, timeout) for item in items.values()]
    records = []
    with progress, closing(executor.run(jobs, progress.phase)) as done:
        for record in done:
            _keep(record, folder)
            _learn(record, items[record.id], memory)
            memory.save(folder.memory)
            progress.done(record)
            records.append(record)
    return Outcome(records)


def _keep(record: CellRecord, folder: RunFolder) -> None:
    try:
        folder.write(record)
    except OSError as error:
        raise BuildFailedError(
            f"the outcome of a cell cannot be recorded: {error}",
            where=str(folder.path),
            remedy="make room there, and run the matrix again: recorded cells are not built again",
        ) from error


def _job(item: Planned, folder: RunFolder, cache: bool, timeout: float | None) -> Job:
    cell = item.cell
    return Job(
        cell=cell,
        digest=cell.digest(),
        level=item.level,
        artifact=folder.artifact(cell.id).absolute(),
        log=folder.log(cell.id).absolute(),
        memory=item.memory,
        cache=cache,
        timeout=timeout,
        cwd=str(cell.base.absolute()),
    )


def _learn(record: CellRecord, item: Planned, memory: Memory) -> None:
    """Updates the memory figures, unless the cell came from the cache or failed without being killed."""
    if record.peak is None:
        return
    if record.artifact is not None and not record.artifact.from_cache:
        memory.learn(item.cell, record.peak)
    elif was_killed(record):
        memory.learn(item.cell, record.peak, killed=True)
