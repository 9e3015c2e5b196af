"""Calls a function in several processes, any of which may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], count: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Yields each job with its result, or with the exception that ended it, as they end.

    When a process dies, it is not known which job killed it. So the jobs that may have done so are run again, each in a
    process of its own. :func:`benchmarks.zoo.processes.run_commands` runs commands with time limits instead.

    Args:
        work: is called with each job; it and its results must be picklable.
        jobs: the arguments.
        count: the number of processes.
    """
    waiting = list(jobs)
    while waiting:
        interrupted = []
        for job, result in _once(work, waiting, count):
            if isinstance(result, BrokenProcessPool):
                interrupted.append(job)
            else:
                yield job, result
        for job in interrupted[: 2 * count]:  # the pool has at most that many jobs in its processes
            yield from _once(work, [job], 1)
        waiting = interrupted[2 * count :]


def _once(work: Callable[[Job], Result], jobs: Sequence[Job], count: int) -> Iterator[tuple[Job, Result | Exception]]:
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, job): number for number, job in enumerate(jobs)}
        interrupted = []
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                interrupted.append((futures[future], error))
            elif isinstance(error, Exception):
                yield jobs[futures[future]], error
            else:
                yield jobs[futures[future]], future.result()
    for number, error in sorted(interrupted, key=lambda pair: pair[0]):
        yield jobs[number], error
