"""Writes the reports of a run: a page for people, JUnit XML and Markdown for CI, with the changes since the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from linux_side.matrix.planning.hosts import this_host
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.plan import make_plan
from linux_side.matrix.records import RunFolder
from linux_side.matrix.report.change import Change, changes, read_baseline, remember, snapshot
from linux_side.matrix.report.html import html_page, verdict
from linux_side.matrix.report.junit import matrix_junit
from linux_side.matrix.report.markdown import markdown
from linux_side.matrix.report.summary import Summary, summarize
from linux_side.matrix.spec.spec import load_spec
from toolchain.errors import UsageError
from toolchain.host.installed import version_of
from toolchain.report.writing import write_report
from toolchain.targets import Backend


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report; one that is None is not written."""

    html: Path
    junit: Path | None = None
    markdown: Path | None = None


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        headline: how many cells passed.
        snapshot: its figures, which the next report is compared with.
        changes: the changes since the earlier report.
    """

    headline: str
    snapshot: Mapping[str, Any]
    changes: Sequence[Change]


def write_reports(
    spec: Path, folder: RunFolder, files: ReportFiles, *, legs: Mapping[str, Path], baseline: Path | None = None
) -> Written:
    """Writes the reports of a run.

    Args:
        spec: the spec's file.
        folder: the run folder.
        files: the files to write.
        legs: folders with the results of other machines, by the name of the leg. Folders in the run folder's ``legs``
            are added.
        baseline: the snapshot to compare with; None for that of the last report.

    Raises:
        UsageError: there was no run, the baseline is not a snapshot, or a file cannot be written.
    """
    loaded = load_spec(spec)
    if not folder.path.is_dir():
        raise UsageError(
            "there is nothing to report: this spec was never run here",
            where=str(folder.path),
            remedy="`trtcross matrix run` first, or name its folder with --out",
        )
    plan = make_plan(loaded, [this_host()], folder, Memory.load(folder.memory))
    when = datetime.now(timezone.utc).isoformat(sep=" ", timespec="minutes")
    summary = Summary(str(spec), summarize(plan, folder, {**_own_legs(folder), **legs}), when, _versions())
    now = snapshot(summary)
    before = read_baseline(baseline) if baseline else remember(folder.path, now)
    changed = changes(before, now)
    write_report(files.html, html_page(summary, changed, str(before.get("when")) if before else None))
    if files.junit:
        write_report(files.junit, matrix_junit(summary))
    if files.markdown:
        write_report(files.markdown, markdown(summary, changed))
    return Written(verdict(summary).headline, now, changed)


def _own_legs(folder: RunFolder) -> dict[str, Path]:
    own = folder.path / "legs"
    return {path.name: path for path in sorted(own.iterdir()) if path.is_dir()} if own.is_dir() else {}


def _versions() -> dict[str, str]:
    names = ("trtcross", "torch", *(name for backend in Backend for name in backend.distributions))
    return {name: version for name in names if (version := version_of(name))}
