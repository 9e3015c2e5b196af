"""What runs rows on a GPU, each in a process of its own: its command line, a line of JSON for each, and the table."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.zoo.processes import Found, in_processes
from benchmarks.zoo.table import read_lines, read_records, today, write_records

_SAID = 300


def add_options(parser: argparse.ArgumentParser, *, jobs: int, each: float, seconds: float) -> None:
    """Adds what :func:`record` and :func:`into_table` read, with these defaults."""
    parser.add_argument("out", type=Path, nargs="?", help="a line of JSON for each row")
    parser.add_argument("--only", default="*", help="names of rows, as patterns with commas between")
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--each", type=float, default=each, help="seconds for one")
    parser.add_argument("--seconds", type=float, default=seconds, help="in all")
    parser.add_argument("--into-table", type=Path, nargs="+", help="files of results")


def record(asked: argparse.Namespace, commands: Mapping[str, Sequence[str]], at_first: Found) -> None:
    """Runs the commands of rows that are not in the file yet, and writes each row as it comes.

    Args:
        at_first: of a row, until its process has found out more.
    """
    there = read_lines(asked.out)
    missing = {name: command for name, command in commands.items() if name not in there}
    logs = asked.out.with_suffix(".logs")
    for name, found in in_processes(missing, logs, count=asked.jobs, each=asked.each, seconds=asked.seconds):
        row = {"name": name, "date": today(), **at_first, **found}
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "outputs"}), flush=True)


def into_table(paths: Sequence[Path], records: Path) -> None:
    """Takes the rows of files of results into the table's own file of them."""
    taken = {name: found for path in paths for name, found in read_lines(path).items()}
    write_records(records, read_records(records) | taken)


def print_steps(steps: Iterable[Found]) -> None:
    """Prints what is known after each step, for the case that the next one crashes."""
    found: Found = {}
    try:
        for more in steps:
            found |= more
            print(json.dumps(found), flush=True)
    except Exception as error:  # noqa: BLE001 - what it raised is the row
        traceback.print_exc()
        print(json.dumps(found | {"failed": said(error)}), flush=True)


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SAID]
