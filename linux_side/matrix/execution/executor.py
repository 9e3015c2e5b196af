"""What an executor is: it does jobs, in whatever order and wherever it likes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from linux_side.matrix.execution.job import Job, OnPhase
from linux_side.matrix.records import CellRecord


class Executor(Protocol):
    """Does jobs; each gives one record, a failed one too."""

    def run(self, jobs: Sequence[Job], on_phase: OnPhase) -> Generator[CellRecord, None, None]:
        """Yields a record as soon as its job is done; closing the generator stops what is at work."""
