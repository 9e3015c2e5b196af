"""The HTML page of a matrix: a coloured grid, the changes, and each cell's details, which unfold."""

from __future__ import annotations

from collections.abc import Sequence

from linux_side.matrix.report.change import Change, figure
from linux_side.matrix.report.summary import CellSummary, Leg, Summary
from toolchain.report.page import Block, Facts, Grid, Mark, Page, Section, Table, TableCell, Text, Verdict
from toolchain.report.render import render
from toolchain.text import size_text

# What to do about each state, the most urgent first.
_STATES = {
    "failed": "",
    "stale": "run the matrix again",
    "not run": "run the matrix",
    "impossible": "install what is missing, or leave it out in the spec",
    "elsewhere": "build it on such a machine, or with --executor ray",
    "excluded": "nothing: the spec leaves it out",
}
_LEGEND = (
    "A figure is the artifact's size. An empty cell is a combination that the spec does not have, such as a model "
    "with precisions of its own; excluded, one that the spec leaves out; impossible, one that cannot be built here."
)
_NAMED = 4


def html_page(summary: Summary, changed: Sequence[Change], since: str | None) -> str:
    """Returns one self-contained HTML page.

    Args:
        summary: the cells.
        changed: the changes since the earlier report.
        since: the time of that report; None if there is none.
    """
    sections = [
        *_reasons(summary),
        Section("Cells", [_grid(summary), Text(_LEGEND)]),
        Section("What changed", _changes(changed, since)),
        Section("Figures", [_figures(summary)]),
        Section("Details", [Text("Each cell's settings, verification, and the lines that do it again.")]),
        *(_details(cell) for cell in summary.cells),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    return render(Page(f"Matrix {summary.title}", verdict(summary), sections, subtitle=summary.when, footer=versions))


def verdict(summary: Summary) -> Verdict:
    """Returns the headline: how many cells passed, what is left, and what to do."""
    passed, failed, total = summary.count("passed"), summary.count("failed"), len(summary.cells)
    excluded = summary.count("excluded")
    rest = total - passed - failed - excluded
    mark = Mark.BAD if failed else Mark.GOOD if not rest else Mark.DOUBT
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{rest} not built here or not run"] if rest else []
    parts += [f"{excluded} excluded by the spec"] if excluded else []
    remedy = "open a failed cell below: its last words, and the lines that do it again" if failed else ""
    return Verdict(mark, f"{passed} of {total - excluded} cells passed", ", ".join(parts), remedy)


def _reasons(summary: Summary) -> list[Section]:
    """Returns a table of the reasons why cells have not passed; each reason once, failures first."""
    by_reason: dict[tuple[str, str], list[CellSummary]] = {}
    for state in sorted({cell.state for cell in summary.cells} - {"passed"}, key=_urgency):
        for cell in summary.cells:
            if cell.state == state:
                by_reason.setdefault((state, cell.reason), []).append(cell)
    rows: list[list[str | TableCell]] = [
        [_named(cells), TableCell(state, cells[0].mark), reason, _remedy(cells[0])]
        for (state, reason), cells in by_reason.items()
    ]
    return [Section("Why not", [Table(["cells", "state", "reason", "what to do"], rows)])] if rows else []


def _urgency(state: str) -> int:
    return list(_STATES).index(state) if state in _STATES else len(_STATES)


def _named(cells: Sequence[CellSummary]) -> str | TableCell:
    if len(cells) == 1:
        return TableCell(cells[0].id, anchor=_anchor(cells[0]))
    left = len(cells) - _NAMED
    names = ", ".join(cell.id for cell in cells[:_NAMED])
    return f"{len(cells)} cells: {names}" + (f" and {left} more" if left > 0 else "")


def _remedy(cell: CellSummary) -> str:
    record = cell.record
    if cell.state == "failed" and record and record.error:
        return str(record.error.get("remedy") or "")
    return _STATES.get(cell.state, "")


def _grid(summary: Summary) -> Grid:
    columns = list(dict.fromkeys(cell.planned.cell.precision for cell in summary.cells))
    rows: dict[str, dict[str, TableCell]] = {}
    for cell in summary.cells:
        text = size_text(cell.size) if cell.size is not None and cell.state == "passed" else cell.state
        row = rows.setdefault(f"{cell.planned.cell.name}, {_target(cell)}", {})
        row[cell.planned.cell.precision] = TableCell(text, cell.mark, anchor=_anchor(cell))
    return Grid(
        "Models and targets, by precision; choose a cell for its details",
        columns,
        [(name, [row.get(column) for column in columns]) for name, row in rows.items()],
    )


def _target(cell: CellSummary) -> str:
    """Returns a cell's identifier without the model and the precision, with spaces for hyphens."""
    return cell.id[len(cell.planned.cell.name) + len(cell.planned.cell.precision) + 2 :].replace("-", " ")


def _anchor(cell: CellSummary) -> str:
    return f"cell-{cell.id}"


def _changes(changed: Sequence[Change], since: str | None) -> list[Block]:
    if since is None:
        return [Text("This is the first report.")]
    if not changed:
        return [Text(f"Nothing beyond noise since {since}.")]
    rows: list[list[str | TableCell]] = [
        [item.cell, item.what, item.before, TableCell(item.after, item.mark)] for item in changed
    ]
    return [Table(["cell", "figure", "before", "now"], rows, f"Since {since}")]


def _figures(summary: Summary) -> Table:
    """Returns a table of every cell's figures, grouped by model."""
    columns = ["cell", "state", "size", "build", "peak memory", "coverage", "error", "latency", "verified to"]
    rows: list[list[str | TableCell]] = []
    for name in dict.fromkeys(cell.planned.cell.name for cell in summary.cells):
        rows.append([name])
        rows += [_row(cell) for cell in summary.cells if cell.planned.cell.name == name]
    return Table(columns, rows, "Error: the worst relative L2 of any output. No figure: it was not measured.")


def _row(cell: CellSummary) -> list[str | TableCell]:
    record = cell.record
    numbers = [
        figure("size", cell.size),
        figure("seconds", cell.seconds),
        figure("size", record.peak if record else None),
        figure("coverage", cell.coverage),
        figure("error", cell.error),
        figure("latency", cell.latency),
    ]
    return [
        TableCell(f"{cell.planned.cell.precision}, {_target(cell)}", anchor=_anchor(cell)),
        TableCell(cell.state, cell.mark),
        *(TableCell(text, number=True) for text in numbers),
        level_text(cell),
    ]


def level_text(cell: CellSummary) -> str:
    """Returns the levels that a cell was verified to, here and on other machines: ``structure, windows: golden``."""
    parts = [str(cell.record.level)] if cell.record and cell.record.state == "passed" else []
    for leg in cell.legs:
        passed = [str(level.get("level")) for level in leg.levels if level.get("passed") is True]
        parts.append(f"{leg.name}: {passed[-1] if passed else 'nothing'}")
    return ", ".join(parts)


def _details(cell: CellSummary) -> Section:
    planned, record = cell.planned, cell.record
    facts: list[tuple[str, str | TableCell]] = [("state", TableCell(cell.state, cell.mark))]
    facts += [("why", cell.reason)] if cell.reason else []
    facts += [
        ("model", TableCell(planned.cell.model, code=True)),
        ("precision", planned.cell.precision),
        ("target", f"{planned.cell.target.platform.value}, {planned.cell.target.backend.value}"),
        ("GPUs", ", ".join(planned.cell.target.gpus) or "TensorRT-RTX's own set"),
    ]
    blocks: list[Block] = [Facts(facts)]
    if record:
        facts += _record_facts(cell)
        if record.levels:
            blocks.append(_levels("Verified by the builder", record.levels))
        blocks += [_leg(leg) for leg in cell.legs]
        if cell.log:
            blocks += [Text("Its log's last lines:"), Text(cell.log, code=True)]
        blocks += [Text("To do this one cell again:"), Text("\n".join(record.reproduce), code=True)]
    return Section(cell.id, blocks, anchor=_anchor(cell), folded=True, mark=cell.mark)


def _record_facts(cell: CellSummary) -> list[tuple[str, str | TableCell]]:
    record = cell.record
    if record is None:
        return []
    facts: list[tuple[str, str | TableCell]] = [("built on", f"{record.host}, {record.started:%Y-%m-%d %H:%M} UTC")]
    if record.error:
        facts.append(("what to do", str(record.error.get("remedy") or "")))
    if artifact := record.artifact:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in artifact.phases.items())
        stays = ", ".join(f"{name} x{count}" for name, count in artifact.fallback.items())
        facts += [
            ("size", size_text(artifact.size)),
            ("SHA-256", TableCell(artifact.sha256, code=True)),
            ("engines", f"{artifact.engines}, for {_runtime(cell)} {artifact.runtime}"),
            ("operators", f"{artifact.in_engines} of {artifact.operators} in TensorRT"),
            ("in PyTorch", stays or "nothing"),
            ("build", "from the cache" if artifact.from_cache else phases),
        ]
    return facts


def _runtime(cell: CellSummary) -> str:
    return cell.planned.cell.target.backend.distributions[1]


def _levels(caption: str, levels: Sequence[object]) -> Table:
    rows: list[list[str | TableCell]] = []
    for level in levels:
        if isinstance(level, dict):
            passed, seconds = level.get("passed") is True, level.get("seconds")
            word = TableCell("ok", Mark.GOOD) if passed else TableCell("failed", Mark.BAD)
            time = f"{seconds:.2f} s" if isinstance(seconds, (int, float)) else ""
            rows.append([str(level.get("level")), word, TableCell(time, number=True)])
    return Table(["level", "outcome", "time"], rows, caption)


def _leg(leg: Leg) -> Table:
    table = _levels(f"Leg {leg.name}", list(leg.levels))
    rows = list(table.rows)
    if leg.latency is not None:
        rows.append(["latency, median", TableCell(f"{leg.latency:.3f} ms", Mark.GOOD), ""])
    if leg.error:
        rows.append(["error", TableCell(leg.error.problem, Mark.BAD), ""])
    return Table(table.columns, rows, table.caption)
