"""A process pool of the benchmarks goes on when a process dies."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("benchmarks", reason="the sources are not here")

from benchmarks.gpu.processes import in_processes


def doubled(number: int) -> int:
    if number == 3:
        os._exit(1)
    if number == 4:
        raise ValueError("four")
    return 2 * number


def test_a_process_that_dies_costs_no_other_job_its_result() -> None:
    results = dict(in_processes(doubled, range(6), 2))
    assert {number: results[number] for number in (0, 1, 2, 5)} == {0: 0, 1: 2, 2: 4, 5: 10}
    assert "terminated abruptly" in str(results[3]) and str(results[4]) == "four"
