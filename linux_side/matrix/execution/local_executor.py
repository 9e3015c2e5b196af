"""Runs cells on this machine, several at a time within a memory budget."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from linux_side.matrix.execution.job import Job, OnPhase, lost_record, run_job
from linux_side.matrix.execution.processes import Cancelled, Processes
from linux_side.matrix.records import CellRecord
from toolchain.errors import BuildFailedError


class LocalExecutor:
    """Each cell is a child process, watched by a thread.

    Args:
        workers: how many cells at a time.
        budget: bytes that the cells at work may take together. One that takes more runs alone.
    """

    def __init__(self, workers: int, budget: int) -> None:
        self.workers = workers
        self.budget = budget

    def run(self, jobs: Sequence[Job], on_phase: OnPhase) -> Generator[CellRecord, None, None]:
        # The biggest first: it would otherwise be alone at the end.
        waiting = sorted(jobs, key=lambda job: -job.memory)
        running: dict[Future[CellRecord], Job] = {}
        processes = Processes()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while waiting or running:
                    while (job := self._next(waiting, list(running.values()))) is not None:
                        waiting.remove(job)
                        running[pool.submit(run_job, job, processes, on_phase)] = job
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield _result(future, running.pop(future))
            finally:
                processes.stop()

    def _next(self, waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
        if len(running) >= self.workers:
            return None
        left = self.budget - sum(job.memory for job in running)
        return next((job for job in waiting if job.memory <= left or not running), None)


def _result(future: Future[CellRecord], job: Job) -> CellRecord:
    try:
        return future.result()
    except Cancelled:
        raise
    except Exception as error:  # noqa: BLE001 - a full disk or a bug must not take the other cells along
        problem = BuildFailedError(
            f"the cell could not be run: {type(error).__name__}: {error}", where=job.cell.id, remedy="see the message"
        )
        return lost_record(job, problem)
