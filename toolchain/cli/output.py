"""What a verb prints: one JSON document on stdout for scripts, text on stderr or stdout for people.

A parent process that passes a pipe (``toolchain.io.events``), as the matrix does, gets phases and the document there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import wraps
from typing import Any

import click

from toolchain.errors import TrtcrossError, UsageError, unexpected
from toolchain.host.requirements import Requirement, State
from toolchain.io.events import EventWriter, events_to_parent
from toolchain.progress import draws, showing
from toolchain.text import TEXT_LIMIT, with_commands

DOCUMENT_VERSION = 1


class Output:
    """Collects and prints what one call of a verb reports.

    Attributes:
        as_json: whether ``--json`` was given; text for people then goes to stderr.
        verbosity: -1 with ``-q``, 1 and more with ``-v``.
        unwritable: the error of writing to stdout, unless its reader closed it.
    """

    def __init__(self, verb: str, as_json: bool, verbosity: int, events: EventWriter | None = None) -> None:
        """Decides once where text, documents and events go.

        Args:
            verb: the verb's name, for the document.
            as_json: whether the document is printed.
            verbosity: -1 with ``-q``, 1 and more with ``-v``.
            events: the pipe to the parent process, if it passed one.
        """
        self.as_json = as_json
        self.verbosity = verbosity
        self.unwritable: OSError | None = None
        self._events = events
        self._verb = verb
        self._document: dict[str, Any] = {"version": DOCUMENT_VERSION, "verb": verb, "ok": True}

    @property
    def document(self) -> dict[str, Any]:
        """The document that ``--json`` prints, with what was reported so far."""
        return self._document

    @property
    def bars(self) -> bool:
        """Whether bars are drawn where the lines for people go; a verb then prints no lines about work under way."""
        return self.verbosity >= 0 and draws(sys.stderr) and (self.as_json or draws(sys.stdout))

    def part(self) -> Output:
        """Returns the output of one of several artifacts; its document is separate and is not printed."""
        return Output(self._verb, self.as_json, self.verbosity)

    def put(self, **members: Any) -> None:
        """Adds members to the JSON document."""
        self._document.update(members)

    def say(self, text: str = "", *, level: int = 0) -> None:
        """Prints a line for people: with ``level`` 1 only if ``-v`` is given, with -1 even if ``-q`` is given."""
        if level <= self.verbosity:
            self._print(text, err=self.as_json)

    def send(self, **event: Any) -> None:
        """Sends an event to the parent process, if it passed a pipe."""
        if self._events:
            self._events.send(**event)

    def fail(self, error: TrtcrossError) -> None:
        """Puts an error into the document and prints it on stderr."""
        self.put(ok=False, error=error.to_json())
        click.echo(click.style("error: ", fg="red", bold=True) + str(self._shortened(error)), err=True)

    def _shortened(self, error: TrtcrossError) -> TrtcrossError:
        """Cuts an error's long texts for people; with ``-v``, and in the document, they stay whole."""
        if self.verbosity > 0:
            return error
        problem, where = (_cut(text) if text else text for text in (error.problem, error.where))
        return TrtcrossError(problem or "", where=where, remedy=error.remedy)

    def finish(self) -> None:
        """Prints the document with ``--json``, and sends it to the parent process."""
        if self.as_json:
            self._print(json.dumps(self._document, indent=1), err=False)
        self.send(event="document", document=self._document)

    def _print(self, text: str, *, err: bool) -> None:
        """Prints a text. If stdout cannot be written to, the verb goes on, so that its work is not lost."""
        try:
            click.echo(text, err=err)
        except OSError as error:
            if err:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # a broken pipe: a reader such as `head` has what it needs
                self.unwritable = error

    def say_unwritable(self, error: OSError) -> None:
        """Reports on stderr that stdout cannot be written to."""
        problem = UsageError(f"stdout cannot be written to: {error.strerror}", remedy="make room, or write elsewhere")
        click.echo(f"error: {problem}", err=True)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a click command ``--json``, ``-q`` and ``-v``, a :class:`Output`, and our exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print less.")
    @click.option("-v", "--verbose", count=True, help="Print more.")
    @wraps(function)
    def command(*, as_json: bool, quiet: bool, verbose: int, **options: Any) -> None:
        name = click.get_current_context().info_name or ""
        output = Output(name, as_json, -1 if quiet else verbose, events_to_parent())
        code = _run(function, output, options)
        output.finish()
        if output.unwritable:
            output.say_unwritable(output.unwritable)
            code = code or UsageError.exit_code
        if code:
            raise SystemExit(code)

    return command


def _run(function: Callable[..., None], output: Output, options: dict[str, Any]) -> int:
    """Runs a verb, reports its error, and returns the exit code."""
    try:
        with showing() if output.verbosity >= 0 else nullcontext():
            function(output, **options)
    except TrtcrossError as error:
        output.fail(error)
        return error.exit_code
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - a bug of ours, and scripts still get their document
        traceback.print_exc()
        output.fail(unexpected(error))
        return TrtcrossError.exit_code
    return 0


def _cut(text: str) -> str:
    left = len(text) - TEXT_LIMIT
    return text if left <= 0 else f"{text[:TEXT_LIMIT]}\u2026 ({left} more characters; -v shows them)"


_MARKS = {State.MET: ("ok", "green"), State.NOT_MET: ("no", "red"), State.UNKNOWN: ("??", "yellow")}


def requirement_lines(requirements: Iterable[Requirement]) -> list[str]:
    """Formats requirements for people; those that are not met come with their remedy."""
    lines = []
    for item in requirements:
        mark, color = _MARKS[item.state]
        text = f"{item.name}: needs {item.needed}; here: {item.found}"
        lines.append(f"  {click.style(mark, fg=color)}  {_wrapped(text)}")
        if item.state is not State.MET and item.remedy:
            lines.append(f"      {_wrapped(f'what to do: {item.remedy}')}")
    return lines


_INDENT = 6
_INLINE_LENGTH = 30  # a command of up to so many characters stays within its sentence


def _wrapped(text: str) -> str:
    """Wraps a text to the terminal's width and indents all lines but the first; without a terminal, nothing changes.

    A long command stays whole on a line of its own: with a line break in it, it could not be pasted.
    """
    width = max(shutil.get_terminal_size().columns - _INDENT, 20)
    if not sys.stdout.isatty() or len(text) <= width:
        return text
    lines: list[str] = []
    prose = ""
    for piece, command in [*with_commands(text), ("", True)]:
        if not command or 0 < len(piece) <= _INLINE_LENGTH:
            prose += f"`{piece}`" if command else piece
            continue
        lines += textwrap.wrap(prose, width - 2, break_long_words=False, break_on_hyphens=False)
        lines += [piece] if piece else []
        prose = ""
    return f"\n{' ' * (_INDENT + 2)}".join(lines)
