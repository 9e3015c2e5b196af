"""Records rows that run on a GPU, each in a process of its own: its options, a file of JSON lines, the table."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.zoo.processes import Found, run_commands
from benchmarks.zoo.table import read_lines, read_records, today, write_records

_SAID = 300


def add_options(parser: argparse.ArgumentParser, *, jobs: int, each: float, seconds: float) -> None:
    """Adds the options that :func:`record` and :func:`into_table` use, with these defaults."""
    parser.add_argument("out", type=Path, nargs="?", help="a line of JSON for each row")
    parser.add_argument("--only", default="*", help="names of rows, as patterns with commas between")
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--each", type=float, default=each, help="seconds for one")
    parser.add_argument("--seconds", type=float, default=seconds, help="in all")
    parser.add_argument("--into-table", type=Path, nargs="+", help="files of results")
    parser.add_argument("--revision", help="with --into-table: the revision that built the artifacts")


def record(asked: argparse.Namespace, commands: Mapping[str, Sequence[str]], at_first: Found) -> None:
    """Runs the commands of rows that are not in the file yet, and writes each row as it ends.

    Args:
        asked: the parsed options of :func:`add_options`.
        commands: the commands by the row's name.
        at_first: the members of a row whose process has printed nothing.
    """
    there = read_lines(asked.out)
    missing = {name: command for name, command in commands.items() if name not in there}
    logs = asked.out.with_suffix(".logs")
    for name, found in run_commands(missing, logs, count=asked.jobs, each=asked.each, seconds=asked.seconds):
        row = {"name": name, "date": today(), **at_first, **found}
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "outputs"}), flush=True)


def into_table(asked: argparse.Namespace, records: Path) -> None:
    """Merges the rows of files of results into the file that the table is made from.

    Args:
        asked: the parsed options of :func:`add_options`.
        records: that file.
    """
    built = {"revision": asked.revision} if asked.revision else {}
    taken = {name: found | built for path in asked.into_table for name, found in read_lines(path).items()}
    write_records(records, read_records(records) | taken)


def print_steps(steps: Iterable[Found]) -> None:
    """Prints what is known after each step, in case the next one crashes."""
    found: Found = {}
    try:
        for more in steps:
            found |= more
            print(json.dumps(found), flush=True)
    except Exception as error:  # noqa: BLE001 - the error is the row's result
        traceback.print_exc()
        print(json.dumps(found | {"failed": said(error)}), flush=True)


def said(error: Exception) -> str:
    """Returns an error's class and message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SAID]
