"""The Markdown of a matrix, for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from linux_side.matrix.report.change import Change, figure
from linux_side.matrix.report.html import level_text, verdict
from linux_side.matrix.report.summary import Summary
from toolchain.text import printable

_SIGNS = {"passed": "✅", "failed": "❌", "excluded": "🚫"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@:])")
_CHANGES_LIMIT = 50


def markdown(summary: Summary, changed: Sequence[Change]) -> str:
    """Returns a headline, a table of the cells, and the changes. Texts are escaped because they are not trusted."""
    result = verdict(summary)
    lines = [f"## Matrix {escape(summary.title)}: {escape(result.headline)}", ""]
    if result.reason:
        lines += [escape(result.reason), ""]
    lines += ["| cell | state | size | build | coverage | error | latency | verified to |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|---|"]
    for cell in summary.cells:
        reason = f": {cell.reason}" if cell.reason else ""
        columns = [
            cell.id,
            f"{_SIGNS.get(cell.state, '❔')} {cell.state}{reason}",
            figure("size", cell.size),
            figure("seconds", cell.seconds),
            figure("coverage", cell.coverage),
            figure("error", cell.error),
            figure("latency", cell.latency),
            level_text(cell),
        ]
        lines.append("| " + " | ".join(map(escape, columns)) + " |")
    if changed:
        lines += ["", "| changed | figure | before | now |", "|---|---|--:|--:|"]
        for item in changed[:_CHANGES_LIMIT]:
            lines.append("| " + " | ".join(map(escape, (item.cell, item.what, item.before, item.after))) + " |")
        if len(changed) > _CHANGES_LIMIT:
            lines += ["", f"and {len(changed) - _CHANGES_LIMIT} more"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escapes a text so that Markdown shows it literally, on one line of at most 300 characters."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split()), 300))
