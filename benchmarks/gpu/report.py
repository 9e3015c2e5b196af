"""Writes docs/benchmarks/gpu.md and its plot from the files that the other scripts wrote to docs/benchmarks/gpu/.

python -m benchmarks.gpu.report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from benchmarks.measure import REPOSITORY
from benchmarks.plot import FONTS

FOLDER = REPOSITORY / "docs" / "benchmarks" / "gpu"
CALLEES = ("ours", "ours, CUDA graphs", "ours, CUDA graphs, copied", "execute_engine", "raw", "raw, CUDA graph")
_COLOURS = ("#e67e22", "#c0392b", "#d98880", "#7f8c8d", "#1f6fb2", "#8fb8de")

Row = Sequence[object]


def main() -> None:
    points = _points(_read("latency.json")["rows"])
    (FOLDER / "latency.svg").write_text(dot_plot(points), encoding="utf-8")
    text = (FOLDER / "text.md").read_text(encoding="utf-8")
    tables = {
        "errors": errors_table(),
        "defects": defects_table(_read("rtx_defects.json")["rows"]),
        "right": right_table(_read("rtx_defects.json")["rows"]),
        "latency": latency_table(points),
        "peer": peer_table(_read("peer.json")["rows"], points),
        "first_call": first_call_table(_read("first_call.json")["rows"]),
        "memory": memory_table(_read("memory.json")),
        "soak": workers_table(_read("soak.json")),
        "soak_memory": memory_over_time(_read("soak.json")),
        "churn": workers_table(_read("churn.json")),
    }
    for name, table in tables.items():
        before, _, behind = text.partition(f"{{{name}}}")
        if not behind:
            raise SystemExit(f"text.md has no place for {{{name}}}")
        text = before + table + behind
    (FOLDER.parent / "gpu.md").write_text(text, encoding="utf-8")


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def errors_table() -> str:
    """Returns the table of errors, compared with golden I/O and with the original on the same GPU."""
    text = (FOLDER / "errors.jsonl").read_text(encoding="utf-8")
    found: dict[tuple[str, str], dict[tuple[str, bool], dict[str, Any]]] = {}
    for row in map(json.loads, text.splitlines()):
        measured = (row["against"], row.get("cuda_graphs", False))
        found.setdefault((row["artifact"], row["output"]), {})[measured] = row
    lines = []
    for (name, output), rows in sorted(found.items()):
        golden = rows.get(("golden", False)) or rows.get(("golden", True))
        lines.append((name, output, *_against_golden(golden), *_against_eager(rows.get(("eager", False)))))
    return table(
        ("artifact", "output", "relative L2", "allowed", "max / max", "allowed", "cosine", "", "against eager here",
         "eager, cast"), lines
    )  # fmt: skip


def _against_golden(row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return ("",) * 6
    return (f"{row['relative_l2']:.1e}", f"{row['allowed_l2']:g}", f"{row['max_relative']:.1e}",
            f"{row['allowed_max']:g}", f"{row['cosine']:.7f}", _verdict(row))  # fmt: skip


def _against_eager(row: dict[str, Any] | None) -> tuple[str, str]:
    """Returns the error of an artifact and of the cast original, both compared with the original in eager PyTorch."""
    if row is None:
        return "", ""
    cast = row["eager_cast_l2"]
    return f"{row['relative_l2']:.1e}", f"{cast:.1e}" if cast is not None else ""


def defects_table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of cases that are wrong in some form, as Torch-TensorRT lowers them and as ``build`` does."""
    lines = []
    for name, mine in _by_case(rows).items():
        plain = [row for row in mine if row["build"] == "plain"]
        avoided = [row for row in mine if row["build"] == "avoided"]
        if all(row.get("within") for row in mine):
            continue
        lines.append((*name.split("; ", 1), _forms(plain), _forms(avoided), _worst(avoided)))
    return table(("what", "then", "wrong as it is", "wrong as `build` makes it", "largest relative L2 then"), lines)


def right_table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of cases that are right in every form without any rewrite."""
    whats: dict[str, list[str]] = {}
    for name, mine in _by_case(rows).items():
        if all(row.get("within") for row in mine):
            what, _, then = name.partition("; ")
            whats.setdefault(what, []).append(then)
    alike: dict[str, list[str]] = {}
    for what, thens in whats.items():
        alike.setdefault(", ".join(thens), []).append(what)
    return table(("what", "then"), [(", ".join(names), thens) for thens, names in alike.items()])


def _by_case(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    return cases


def _forms(rows: list[dict[str, Any]]) -> str:
    """Returns in how many of its forms a case is wrong, and in how many of those its engine cannot run."""
    wrong = [row for row in rows if not row.get("within")]
    failed = sum("error" in row for row in wrong)
    words = f"{len(wrong)} of {len(rows)}" if rows else ""
    return f"{words}, {failed} cannot run" if failed else words


def _worst(rows: list[dict[str, Any]]) -> str:
    values = [row["relative_l2"] for row in rows if "relative_l2" in row]
    return f"{max(values):.1e}" if values else ""


def _verdict(row: dict[str, Any]) -> str:
    within = row["relative_l2"] <= row["allowed_l2"] and row["max_relative"] <= row["allowed_max"]
    return "" if within else "**outside**"


def _points(rows: list[dict[str, Any]]) -> dict[tuple[str, int, str], dict[str, dict[str, Any]]]:
    points: dict[tuple[str, int, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            points.setdefault((row["artifact"], row["batch"], row["stream"]), {})[row["callee"]] = row
    return points


def latency_table(points: dict[tuple[str, int, str], dict[str, dict[str, Any]]]) -> str:
    def cells(found: dict[str, dict[str, Any]]) -> Iterator[str]:
        for callee in CALLEES:
            row = found.get(callee)
            yield f"{row['one_at_a_time']['median']:.3f} / {row['back_to_back']:.3f}" if row else ""
        raw, ours = found.get("raw"), found["ours, CUDA graphs"]
        yield (
            f"{ours['one_at_a_time']['median'] / raw['one_at_a_time']['median']:.2f} / "
            f"{ours['back_to_back'] / raw['back_to_back']:.2f}" if raw else ""
        )  # fmt: skip

    header = ("artifact", "batch", "stream", *CALLEES, "ours with graphs / raw")
    return table(header, [(name, batch, stream, *cells(found)) for (name, batch, stream), found in points.items()])


def peer_table(rows: list[dict[str, Any]], points: dict[tuple[str, int, str], dict[str, dict[str, Any]]]) -> str:
    """Returns the table of eager and compiled PyTorch and ours, where ours was measured with the same batch."""
    ours = {
        (*name.replace("_8-", "-").rsplit("-", 1), batch): found["ours, CUDA graphs"]
        for (name, batch, stream), found in points.items()
        if stream == "default"
    }
    lines = []
    for row in rows:
        mine = ours.get((row["model"], row["precision"], row["batch"]))
        beside = (_both(mine), _against(mine, row)) if mine else ("", "")
        lines.append(
            (row["model"], row["precision"], row["batch"], _both(row["eager"]), _both(row["compiled"]), *beside)
        )
    return table(
        ("model", "precision", "batch", "eager", "compiled, CUDA graphs", "ours, CUDA graphs", "ours / compiled"), lines
    )


def _against(mine: dict[str, Any], row: dict[str, Any]) -> str:
    compiled = row["compiled"]
    if "error" in compiled:
        return ""
    single = mine["one_at_a_time"]["median"] / compiled["one_at_a_time"]
    return f"{single:.2f} / {mine['back_to_back'] / compiled['back_to_back']:.2f}"


def _both(measured: dict[str, Any]) -> str:
    if "error" in measured:
        return "failed"
    single = measured["one_at_a_time"]
    return f"{single['median'] if isinstance(single, dict) else single:.3f} / {measured['back_to_back']:.3f}"


def first_call_table(rows: list[dict[str, Any]]) -> str:
    return table(
        ("artifact", "runtime cache", "imports", "load", "first call", "second call", "whole process"),
        [(row["artifact"], row["cache"], *(f"{row[key]:.2f}" for key in ("imports", "load")),
          *(f"{row[key]:.3f}" for key in ("first_call", "second_call")), f"{row['process']:.1f}") for row in rows],
    )  # fmt: skip


def memory_table(rows: list[dict[str, Any]]) -> str:
    def engines(row: dict[str, Any], phase: str, what: str) -> str:
        return f"{row[phase][what] / row['engines']:.2f}"

    return table(
        ("artifact", "engine, MiB", "load: host peak", "load: host after", "load: GPU", "first call: host peak",
         "first call: GPU"),
        [(row["artifact"], f"{row['engines'] / 2**20:.0f}", engines(row, "load", "peak"),
          engines(row, "load", "after"), engines(row, "load", "gpu"), engines(row, "first_call", "peak"),
          engines(row, "first_call", "gpu")) for row in rows if row["engines"] > 2**24],
    )  # fmt: skip


def workers_table(document: dict[str, Any]) -> str:
    """Returns the table of a run's threads: their calls and the largest difference of a result."""
    return table(
        ("artifact", "GPU", "CUDA graphs", "calls", "largest difference from the first result", "error"),
        [(w["artifact"], w["device"], "yes" if w["cuda_graphs"] else "", w["calls"], f"{w['worst']:.1g}",
          w["error"] or "") for w in document["workers"]],
    )  # fmt: skip


def memory_over_time(document: dict[str, Any]) -> str:
    """Returns the table of the memory of host and GPUs, in MiB, at some moments of a run."""
    samples = document["memory"]
    end = samples[-1]["seconds"]
    moments = [moment for moment in (0, 2, 10, 60, 300) if moment < end / 2] + [end / 2, end]
    free = samples[0]["free"]
    return table(
        ("after, s", "host, MiB", *(f"GPU {index}: more than at the start, MiB" for index in range(len(free)))),
        [(f"{at['seconds']:.0f}", f"{at['host'] / 2**20:.0f}",
          *(f"{(before - now) / 2**20:.0f}" for before, now in zip(free, at["free"], strict=True)))
         for at in (min(samples, key=lambda sample: abs(sample["seconds"] - moment)) for moment in moments)],
    )  # fmt: skip


def table(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def dot_plot(points: dict[tuple[str, int, str], dict[str, dict[str, Any]]]) -> str:
    """Draws, for each artifact and batch on the default stream, the time of each callee relative to the raw call."""
    rows = [(f"{name} b{batch}", found) for (name, batch, stream), found in points.items()
            if stream == "default" and "raw" in found]  # fmt: skip
    left, width, step, top = 190, 480, 26, 78
    height = top + step * len(rows) + 40

    def x_at(ratio: float) -> float:
        return left + min(ratio, 2.0) / 2.0 * width

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" '
             f'font-family="{FONTS}" font-size="11">',
             f'<rect width="{left + width + 30}" height="{height}" fill="white"/>']  # fmt: skip
    for index, callee in enumerate(CALLEES):
        x, y = 14 + index % 3 * 226, 20 + index // 3 * 20
        lines.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{_COLOURS[index]}"/>')
        lines.append(f'<text x="{x + 9}" y="{y + 4}">{escape(callee)}</text>')
    for tick in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2):
        colour = "#888888" if tick == 1 else "#e4e4e4"
        lines.append(
            f'<line x1="{x_at(tick)}" y1="{top - 12}" x2="{x_at(tick)}" y2="{height - 30}" stroke="{colour}"/>'
        )
        lines.append(f'<text x="{x_at(tick)}" y="{height - 12}" text-anchor="middle">{tick:g}</text>')
    for index, (label, found) in enumerate(rows):
        middle = top + step * index + step / 2
        lines.append(f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
        for callee, colour in zip(CALLEES, _COLOURS, strict=True):
            if callee not in found:
                continue
            ratio = found[callee]["one_at_a_time"]["median"] / found["raw"]["one_at_a_time"]["median"]
            lines.append(f'<circle cx="{x_at(ratio):.1f}" cy="{middle}" r="5" fill="{colour}" fill-opacity="0.9"/>')
    lines.append(f'<text x="{left}" y="{top - 18}">one call at a time, against the raw call (1)</text></svg>')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
