"""Compares the figures of a report with those of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linux_side.matrix.report.summary import Summary
from toolchain.errors import UsageError
from toolchain.io.atomic import read_json
from toolchain.report.page import Mark
from toolchain.report.writing import write_report
from toolchain.text import size_text

# Figures vary from run to run. Only a relative change beyond this is reported.
_NOISE = {"size": 0.001, "seconds": 0.25, "coverage": 0.0, "error": 0.1, "latency": 0.05}
_NAMES = {"size": "size", "seconds": "build time", "coverage": "coverage", "error": "error", "latency": "latency"}


@dataclass(frozen=True)
class Change:
    """A changed figure of one cell, as text for people."""

    cell: str
    what: str
    before: str
    after: str
    mark: Mark


def snapshot(summary: Summary) -> dict[str, Any]:
    """Returns the document that the next report is compared with."""
    return {"version": 1, "when": summary.when, "cells": {cell.id: cell.snapshot() for cell in summary.cells}}


def read_baseline(path: Path) -> dict[str, Any]:
    """Reads the snapshot of an earlier report.

    Raises:
        UsageError: the file is not a snapshot.
    """
    document = _snapshot(path)
    if document is None:
        raise UsageError(
            "this is not a snapshot of a matrix report", where=str(path), remedy="give a run folder's report.json"
        )
    return document


def remember(folder: Path, current: dict[str, Any]) -> dict[str, Any] | None:
    """Stores this report's snapshot, and returns that of the last report with different figures; None if there is none.

    Args:
        folder: the run folder.
        current: this report's snapshot.
    """
    latest, earlier = folder / "report.json", folder / "report-before.json"
    last = _snapshot(latest)
    if last is not None and last["cells"] != current["cells"]:
        write_report(earlier, json.dumps(last, indent=1))
    write_report(latest, json.dumps(current, indent=1))
    return _snapshot(earlier)


def _snapshot(path: Path) -> dict[str, Any] | None:
    document = read_json(path)
    valid = document is not None and document.get("version") == 1 and isinstance(document.get("cells"), dict)
    return document if valid else None


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Change]:
    """Returns the figures that differ by more than noise, and the cells that are new, gone, fixed or broken.

    Args:
        before: the earlier snapshot; None gives no changes.
        after: the current snapshot.
    """
    if before is None:
        return []
    old, new = before["cells"], after["cells"]
    found: list[Change] = []
    for cell in [*new, *(name for name in old if name not in new)]:
        was, now = old.get(cell), new.get(cell)
        if not isinstance(was, dict) or now is None:
            found.append(Change(cell, "cell", *(("there", "gone") if now is None else ("", "new")), Mark.NONE))
            continue
        found += _figures(cell, was, now)
    return found


def _figures(cell: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    found = []
    if was.get("state") != now["state"]:
        mark = {"passed": Mark.GOOD, "failed": Mark.BAD}.get(now["state"], Mark.DOUBT)
        found.append(Change(cell, "state", str(was.get("state")), now["state"], mark))
    for key, noise in _NOISE.items():
        old, new = was.get(key), now[key]
        if not isinstance(old, (int, float)) or new is None or abs(new - old) <= noise * abs(old):
            continue
        better = (new > old) == (key == "coverage")
        found.append(
            Change(cell, _NAMES[key], figure(key, old), _changed(key, old, new), Mark.GOOD if better else Mark.DOUBT)
        )
    return found


def _changed(key: str, old: float, new: float) -> str:
    return figure(key, new) + (f" ({100 * (new - old) / old:+.1f} %)" if old else "")


def figure(key: str, value: float | None) -> str:
    """Returns a figure with its unit as text; empty for None."""
    if value is None:
        return ""
    texts = {"seconds": f"{value:.1f} s", "coverage": f"{value:.1f} %", "error": f"{value:.1e}"}
    return size_text(int(value)) if key == "size" else texts.get(key, f"{value:.3f} ms")
