"""The interface of an executor, which runs jobs in any order and in any place."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from linux_side.matrix.execution.job import Job, OnPhase
from linux_side.matrix.records import CellRecord


class Executor(Protocol):
    """Runs jobs. Each job gives one record, even if it fails."""

    def run(self, jobs: Sequence[Job], on_phase: OnPhase) -> Generator[CellRecord, None, None]:
        """Yields each record as soon as its job is done. Closing the generator stops the running jobs.

        Args:
            jobs: the jobs.
            on_phase: called with a cell's identifier and each of its phases, from any thread.
        """
