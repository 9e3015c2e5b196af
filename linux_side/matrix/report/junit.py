"""The JUnit XML of a matrix: a suite for each cell, with a case for its build and for each verified level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linux_side.matrix.report.summary import CellSummary, Summary
from toolchain.errors import TrtcrossError, error_from_json
from toolchain.report.junit import Case, Suite, junit_xml


def matrix_junit(summary: Summary) -> str:
    """Returns the JUnit XML document of a matrix."""
    return junit_xml([_suite(cell) for cell in summary.cells], f"matrix {summary.title}")


def _suite(cell: CellSummary) -> Suite:
    facts = {"precision": cell.planned.cell.precision, "platform": cell.planned.cell.target.platform.value}
    when = cell.record.started if cell.record else None
    return Suite(cell.id, list(_cases(cell)), when, facts)


def _cases(cell: CellSummary) -> Iterator[Case]:
    record = cell.record
    if record is None or cell.state in ("excluded", "stale"):
        yield Case("build", cell.id, skipped=f"{cell.state}: {cell.reason}")
        return
    error = error_from_json(dict(record.error)) if record.error else None
    build_failed = record.step in ("build", "executor")
    yield Case(
        "build",
        cell.id,
        record.build_seconds or 0.0,
        failure=error if build_failed else None,
        output="\n".join([*record.reproduce, "", cell.log]) if record.state == "failed" else "",
    )
    if not build_failed:
        yield from _levels(cell.id, "", record.levels, error)
    for leg in cell.legs:
        yield from _levels(cell.id, f"{leg.name}: ", leg.levels, leg.error)


def _levels(
    group: str, prefix: str, levels: Sequence[Mapping[str, Any]], error: TrtcrossError | None
) -> Iterator[Case]:
    named = False
    for level in levels:
        passed, seconds = level.get("passed") is True, level.get("seconds")
        time = float(seconds) if isinstance(seconds, (int, float)) else 0.0
        failure = None if passed else error or TrtcrossError("it failed and gave no reason")
        named = named or not passed
        yield Case(f"{prefix}{level.get('level')}", group, time, failure=failure)
    if error is not None and not named:
        yield Case(f"{prefix}verify", group, failure=error)
