"""Progress of work that takes time: a bar on a terminal, a line elsewhere, and nothing for a step of under a second.

A process shows one step at a time. A verb opens a :class:`Display`. The code that it calls names the current step
(:func:`working`) and reports how far it has come (:func:`advance`), whether or not a display is open::

    with showing(sys.stderr), working("reading every byte", total=size):
        for block in blocks:
            advance(len(block))

``NO_COLOR`` and ``TERM=dumb`` turn the bars off.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

DELAY = 1.0
"""Seconds after which a step is shown."""


def draws(stream: TextIO) -> bool:
    """Whether bars are drawn on a stream: it is a terminal, and plain text was not asked for."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


class Display:
    """Shows the current step. Any thread may report to it."""

    def __init__(self, stream: TextIO) -> None:
        self.bars = draws(stream)
        self._stream = stream
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._bar: Progress | None = None
        self._text, self._done, self._began = "", 0, 0.0
        self._total: int | None = None

    def step(self, text: str, total: int | None = None, *, delay: float = DELAY, line: bool = True) -> None:
        """Begins a step; an empty text ends the last one.

        Args:
            text: what the step does, as people read it.
            total: how much there is to do, such as bytes; None if that is not known.
            delay: seconds until the step is shown.
            line: whether a line is printed where bars are not drawn.
        """
        with self._lock:
            self._cancel()
            self._text, self._total, self._done, self._began = text, total, 0, time.monotonic()
            if not text:
                self._hide()
            elif not (line or self.bars):
                return
            elif self._bar or not delay:
                self._show(text)
            else:
                self._timer = threading.Timer(delay, self._show, [text])
                self._timer.daemon = True
                self._timer.start()

    def advance(self, amount: int) -> None:
        """Adds ``amount`` to what is done of the step."""
        with self._lock:
            self.reach(self._done + amount, self._total)

    def reach(self, done: int, total: int | None) -> None:
        """Sets how much of the step is done, and its total."""
        with self._lock:
            self._done, self._total = done, total
            if self._bar and total is not None:
                self._bar.update(self._bar.task_ids[0], completed=min(done, total), total=total)

    def close(self) -> None:
        self.step("")

    def now(self) -> tuple[str, int | None]:
        """Returns the text and the total of the current step."""
        return self._text, self._total

    def _show(self, text: str) -> None:
        with self._lock:
            if text != self._text:  # the step ended as the timer fired
                return
            if not self.bars:
                self._stream.write(f"{text} ...\n")
                self._stream.flush()
            elif self._bar is None:
                self._bar = _bar(self._stream)
                self._bar.add_task(text)
                self._fill(self._bar)
                self._bar.start()
            else:
                self._fill(self._bar)

    def _fill(self, bar: Progress) -> None:
        bar.reset(bar.task_ids[0], completed=self._done, description=self._text)
        bar.tasks[0].total = self._total  # to `reset`, None means "unchanged"
        bar.tasks[0].start_time = self._began

    def _hide(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(show_speed=False),
        TimeElapsedColumn(),
        console=Console(file=stream, highlight=False, soft_wrap=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # lines are printed above the bar; a redirected stream keeps its own
        redirect_stderr=sys.stderr.isatty(),
    )


# The display of this process: a terminal has room for one.
_DISPLAYS: list[Display] = []


@contextmanager
def showing(stream: TextIO | None = None) -> Iterator[Display]:
    """Shows steps on a stream (stderr by default) until the block ends; a nested call shares the outer display."""
    if _DISPLAYS:
        yield _DISPLAYS[-1]
        return
    display = Display(stream or sys.stderr)
    _DISPLAYS.append(display)
    try:
        yield display
    finally:
        _DISPLAYS.remove(display)
        display.close()


@contextmanager
def working(text: str, total: int | None = None, **options: Any) -> Iterator[None]:
    """Names the current step for the length of the block, then returns to the step around it.

    Where no display is open, it does nothing.

    Args:
        text: what the step does, as people read it.
        total: how much there is to do, for :func:`advance`.
        options: further arguments of :meth:`Display.step`.
    """
    display = _DISPLAYS[-1] if _DISPLAYS else None
    if display is None:
        yield
        return
    before = display.now()
    display.step(text, total, **options)
    try:
        yield
    finally:
        display.step(*before)


def advance(amount: int) -> None:
    """Adds ``amount`` to what is done of the current step."""
    if _DISPLAYS:
        _DISPLAYS[-1].advance(amount)


def reach(done: int, total: int | None) -> None:
    """Sets how much of the current step is done, and its total."""
    if _DISPLAYS:
        _DISPLAYS[-1].reach(done, total)
