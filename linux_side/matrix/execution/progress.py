"""Shows the progress of a matrix: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from linux_side.matrix.records import CellRecord
from toolchain.cli.output import Output
from toolchain.text import printable, size_text

if TYPE_CHECKING:
    from rich.progress import TaskID


_PROBLEM_LIMIT = 300


class RunProgress:
    """Prints a line when a cell starts, and one when it is done.

    Args:
        output: where to print.
        total: how many cells will run.
    """

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def __enter__(self) -> RunProgress:
        self._output.say(f"[0/{self._total}] cells to build and verify")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def phase(self, cell: str, phase: str) -> None:
        """Reports a phase of a cell. Any thread may call it."""
        with self._lock:
            self._output.say(f"  {cell}: {phase}", level=0 if phase == "start" else 1)

    def done(self, record: CellRecord) -> None:
        """Reports a finished cell."""
        with self._lock:
            self._done += 1
            self._output.say(f"[{self._done}/{self._total}] {outcome_line(record)}", level=-1)


class LiveProgress(RunProgress):
    """Shows a line for each running cell and a bar for the whole matrix, on a terminal."""

    def __init__(self, output: Output, total: int) -> None:
        super().__init__(output, total)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=output.as_json, highlight=False),
        )
        self._whole = self._bars.add_task("matrix", total=total)
        self._cells: dict[str, TaskID] = {}

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def phase(self, cell: str, phase: str) -> None:
        with self._lock:
            text = f"{cell}: {phase}"
            if cell in self._cells:
                self._bars.update(self._cells[cell], description=text)
            else:
                self._cells[cell] = self._bars.add_task(text, total=None)

    def done(self, record: CellRecord) -> None:
        with self._lock:
            if record.id in self._cells:
                self._bars.remove_task(self._cells.pop(record.id))
            style = "green" if record.state == "passed" else "bold red"
            self._bars.console.print(outcome_line(record), style=style, markup=False)
            self._bars.advance(self._whole)


def progress_for(output: Output, total: int) -> RunProgress:
    """Returns bars if the output is a terminal that shows them, or else plain lines."""
    return LiveProgress(output, total) if output.bars else RunProgress(output, total)


def outcome_line(record: CellRecord) -> str:
    """Returns one line about a finished cell, with the first line of its error."""
    if record.state == "failed":
        problem = printable(str((record.error or {}).get("problem", "")).partition("\n")[0], _PROBLEM_LIMIT)
        return f"FAILED {record.id}: {record.step}: {problem}"
    parts = [f"{record.build_seconds:.1f} s"] if record.build_seconds is not None else []
    if record.artifact:
        parts.append(size_text(record.artifact.size))
        parts += ["from the cache"] if record.artifact.from_cache else []
    return f"passed {record.id}: {', '.join(parts)}, verified to {record.level}"
