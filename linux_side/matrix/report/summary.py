"""Summarizes each cell for a report, as plain data: from its plan, its record, and the results of other machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linux_side.matrix.planning.plan import Action, Plan, Planned
from linux_side.matrix.records import CellRecord, RunFolder
from toolchain.errors import TrtcrossError, error_from_json
from toolchain.io.atomic import read_json
from toolchain.report.page import Mark
from toolchain.text import TEXT_LIMIT

_LOG_TAIL = 40
_LOG_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Leg:
    """The results of another machine for a cell's artifact.

    Attributes:
        name: the name of the leg, such as ``windows``.
        levels: the report of ``verify --json`` on each level.
        error: why it failed; None if it passed.
        latency: the median of ``bench --json``, in milliseconds.
    """

    name: str
    levels: Sequence[Mapping[str, Any]] = ()
    error: TrtcrossError | None = None
    latency: float | None = None


@dataclass(frozen=True)
class CellSummary:
    """The summary of one cell.

    Attributes:
        planned: the cell in the plan.
        state: ``passed``, ``failed``, ``stale`` (built from an older spec), ``not run``, or the plan's action if the
            cell is not built here.
        reason: the reason for the state; empty if it passed.
        record: the cell's record, if there is one.
        legs: the results of other machines.
        log: the last lines of the log of a failed cell.
    """

    planned: Planned
    state: str
    reason: str
    record: CellRecord | None = None
    legs: Sequence[Leg] = ()
    log: str = ""

    @property
    def id(self) -> str:
        """The cell's identifier."""
        return self.planned.cell.id

    @property
    def mark(self) -> Mark:
        """The mark of the state on the page."""
        marks = {"passed": Mark.GOOD, "failed": Mark.BAD, "excluded": Mark.NONE}
        return marks.get(self.state, Mark.DOUBT)

    @property
    def size(self) -> int | None:
        """The size of the artifact, in bytes."""
        return self.record.artifact.size if self.record and self.record.artifact else None

    @property
    def seconds(self) -> float | None:
        """The seconds of the build."""
        return self.record.build_seconds if self.record else None

    @property
    def from_cache(self) -> bool:
        """Whether the artifact came from the build cache."""
        return bool(self.record and self.record.artifact and self.record.artifact.from_cache)

    @property
    def coverage(self) -> float | None:
        """The share of operators that run in TensorRT, in percent."""
        facts = self.record.artifact if self.record else None
        return 100 * facts.in_engines / facts.operators if facts and facts.operators else None

    @property
    def error(self) -> float | None:
        """The worst relative L2 error of any output on any machine."""
        levels = [*(self.record.levels if self.record else ()), *(level for leg in self.legs for level in leg.levels)]
        return max((value for level in levels for value in _relative_errors(level)), default=None)

    @property
    def latency(self) -> float | None:
        """The best median of any machine, in milliseconds."""
        return min((leg.latency for leg in self.legs if leg.latency is not None), default=None)

    def snapshot(self) -> dict[str, Any]:
        """Returns the figures that the next report is compared with."""
        return {
            "state": self.state,
            "size": self.size,
            "seconds": None if self.from_cache else self.seconds,
            "coverage": self.coverage,
            "error": self.error,
            "latency": self.latency,
        }


@dataclass(frozen=True)
class Summary:
    """The summary of a matrix.

    Attributes:
        title: the spec's path.
        cells: the summaries of its cells.
        when: the time of the report.
        versions: the versions of installed packages.
    """

    title: str
    cells: Sequence[CellSummary]
    when: str
    versions: Mapping[str, str] = field(default_factory=dict)

    def count(self, *states: str) -> int:
        """Counts the cells in one of these states."""
        return sum(cell.state in states for cell in self.cells)

    @property
    def legs(self) -> list[str]:
        """The names of the legs, in order of appearance."""
        return list(dict.fromkeys(leg.name for cell in self.cells for leg in cell.legs))


def summarize(plan: Plan, folder: RunFolder, legs: Mapping[str, Path]) -> list[CellSummary]:
    """Summarizes each planned cell.

    Args:
        plan: the plan.
        folder: the run folder.
        legs: folders by the name of the leg, with the output of ``trtcross verify --json`` and ``bench --json`` on
            another machine in files named after cells: ``ID.json`` or ``ID.ANYTHING.json``.
    """
    return [_summarize(item, folder, _legs(item.cell.id, legs)) for item in plan.cells]


def _summarize(item: Planned, folder: RunFolder, legs: list[Leg]) -> CellSummary:
    record = folder.record(item.cell.id)
    state, reason = _state(item, record, legs)
    log = _tail(folder.log(item.cell.id)) if state == "failed" else ""
    return CellSummary(item, state, reason, record, legs, log)


def _state(item: Planned, record: CellRecord | None, legs: Sequence[Leg]) -> tuple[str, str]:
    if item.action is Action.EXCLUDED:
        return "excluded", item.reason or ""
    if record is None:
        if item.action in (Action.IMPOSSIBLE, Action.ELSEWHERE):
            return item.action.value, item.reason or ""
        return "not run", "no run has come to it yet"
    if record.state == "failed":
        return "failed", f"{record.step}: {(record.error or {}).get('problem', '')}"
    for leg in legs:
        if leg.error is not None:
            return "failed", f"{leg.name}: {leg.error.problem}"
    if record.spec_digest != item.cell.spec_digest():
        return "stale", "built from an older spec"
    return "passed", ""


def _legs(cell: str, folders: Mapping[str, Path]) -> list[Leg]:
    legs = []
    for name, folder in folders.items():
        documents = [read_json(path) for path in _documents(cell, folder)]
        if found := [document for document in documents if document is not None]:
            legs.append(_leg(name, found))
    return legs


def _documents(cell: str, folder: Path) -> list[Path]:
    # This is not a glob because an identifier may contain its special characters.
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p for p in names if p.suffix == ".json" and (p.stem == cell or p.stem.startswith(f"{cell}."))]


def _leg(name: str, documents: Iterable[Mapping[str, Any]]) -> Leg:
    """Returns a leg from its documents, which are not trusted to have the expected form."""
    levels: list[Mapping[str, Any]] = []
    error: TrtcrossError | None = None
    latency: float | None = None
    for document in documents:
        found = document.get("levels")
        levels += [level for level in found if isinstance(level, dict)] if isinstance(found, list) else []
        if document.get("ok") is not True and error is None:
            given = document.get("error")
            error = error_from_json(given) if isinstance(given, dict) else TrtcrossError("it failed and gave no reason")
        median = document["latency"].get("median") if isinstance(document.get("latency"), dict) else None
        latency = float(median) if isinstance(median, (int, float)) else latency
    return Leg(name, levels, error, latency)


def _relative_errors(level: Mapping[str, Any]) -> list[float]:
    details = level.get("details")
    outputs = details.get("outputs") if isinstance(details, dict) else None
    found = [item.get("relative_l2") for item in outputs or () if isinstance(item, dict)]
    return [float(value) for value in found if isinstance(value, (int, float))]


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            text = "\n".join(file.read().decode(errors="replace").rstrip().splitlines()[-_LOG_TAIL:])
            # A page cuts long texts at their end, which is the important part of a log.
            return text if len(text) <= TEXT_LIMIT else text[-TEXT_LIMIT:].partition("\n")[2]
    except OSError:
        return ""
