"""``python -m benchmarks.zoo``: builds the rows, writes ``docs/build/zoo.md``, and fails if a row became worse."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.zoo.building import build
from benchmarks.zoo.forking import in_forks, warm_up
from benchmarks.zoo.row import Row
from benchmarks.zoo.rows import FIXED, zoo
from benchmarks.zoo.table import (
    REPOSITORY,
    RESULTS,
    read_lines,
    read_records,
    today,
    worse,
    write_records,
    write_table,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--only", default="*", help="names of rows, as patterns with commas between")
    parser.add_argument("--fixed", action="store_true", help="the twelve rows that CI builds")
    parser.add_argument("--again", action="store_true", help="rows that have a result already too")
    parser.add_argument("--work", type=Path, help="where results and logs go; .zoo/REVISION if left out")
    parser.add_argument("--keep", type=Path, help="keep the artifacts in this folder")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=480, help="how long a row may take")
    asked = parser.parse_args()
    revision = _revision()
    work = asked.work or REPOSITORY / ".zoo" / revision
    (work / "logs").mkdir(parents=True, exist_ok=True)
    results = work / "results.jsonl"
    rows = zoo(",".join(FIXED) if asked.fixed else asked.only)
    there = {} if asked.again else read_lines(results)
    wanted, rows = rows, [row for row in rows if row.name not in there]
    if rows:
        warm_up()

    def job(row: Row) -> dict[str, Any]:
        return build(row, asked.keep / f"{row.name}.pt2" if asked.keep else None)

    logs = [work / "logs" / f"{row.name}.log" for row in rows]
    done = in_forks(job, rows, logs=logs, folder=work, count=asked.jobs, seconds=asked.seconds)
    for number, (row, result) in enumerate(done):
        record = {
            "name": row.name, "revision": revision, "date": today(), "device": "CPU", "package": _version(row), **result
        }  # fmt: skip
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"[{number + 1}/{len(rows)}] {row.name}: {_line(record)}", flush=True)
    return _finish(read_lines(results), wanted, write=not asked.fixed)


def _finish(results: dict[str, dict[str, Any]], rows: list[Row], *, write: bool) -> int:
    """Compares the results with the table and writes them into it; returns 1 if a row became worse."""
    before = read_records(RESULTS)
    new = {row.name: results[row.name] for row in rows if row.name in results}
    complaints = {name: worse(before[name], record) for name, record in new.items() if name in before}
    for name, complaint in complaints.items():
        if complaint:
            print(f"WORSE: {name}: {complaint}", file=sys.stderr)
    if write:
        every = zoo()
        records = {name: record for name, record in (before | new).items() if name in {row.name for row in every}}
        write_records(RESULTS, records)
        write_table(every, records)
    return 1 if any(complaints.values()) else 0


def _version(row: Row) -> str:
    return metadata.version(row.package) if row.package else ""


def _line(record: dict[str, Any]) -> str:
    words = [record["state"]]
    if "engines" in record:
        words.append(f"{record['engines']} engines, {record['in_engines']}/{record['operators']} {record['in_torch']}")
        words.append(f"{record['bytes'] / 2**20:.1f} MiB")
    words += [f"{error:.1e}" for error in record.get("errors", [])]
    words += [f"{record['seconds']} s ({record['cpu']})"] if "seconds" in record else []
    words += [*record.get("doubts", []), *filter(None, [record.get("reason")])]
    return ", ".join(words)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
