"""What a verb prints: one JSON document on stdout for scripts, text on stderr or stdout for people.

A parent that passes a pipe (``toolchain.io.events``), as the matrix does, hears of phases and gets the document there.
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
    """Collects what one call of a verb has to say.

    Attributes:
        as_json: whether ``--json`` was given; text for people then goes to stderr.
        verbosity: -1 with ``-q``, 1 and more with ``-v``.
        unwritable: why stdout took no more, but for a reader that went away.
    """

    def __init__(self, verb: str, as_json: bool, verbosity: int, events: EventWriter | None = None) -> None:
        """Decides once where text, documents and events go.

        Args:
            events: to the parent process, where it listens.
        """
        self.as_json = as_json
        self.verbosity = verbosity
        self.unwritable: OSError | None = None
        self._events = events
        self._verb = verb
        self._document: dict[str, Any] = {"version": DOCUMENT_VERSION, "verb": verb, "ok": True}

    @property
    def document(self) -> dict[str, Any]:
        """What ``--json`` prints, as far as it is known."""
        return self._document

    @property
    def bars(self) -> bool:
        """Whether bars stand where the lines for people do, and say what those would say of work under way."""
        return self.verbosity >= 0 and draws(sys.stderr) and (self.as_json or draws(sys.stdout))

    def part(self) -> Output:
        """For one of several things that a verb does, with a document of its own, which nobody prints."""
        return Output(self._verb, self.as_json, self.verbosity)

    def put(self, **members: Any) -> None:
        """Adds members to the JSON document."""
        self._document.update(members)

    def say(self, text: str = "", *, level: int = 0) -> None:
        """Prints a line for people; ``level`` 1 only with ``-v``, -1 even with ``-q``."""
        if level <= self.verbosity:
            self._print(text, err=self.as_json)

    def send(self, **event: Any) -> None:
        """Tells the parent process what happens, where it listens."""
        if self._events:
            self._events.send(**event)

    def fail(self, error: TrtcrossError) -> None:
        self.put(ok=False, error=error.to_json())
        click.echo(click.style("error: ", fg="red", bold=True) + str(self._shortened(error)), err=True)

    def _shortened(self, error: TrtcrossError) -> TrtcrossError:
        """An error as people read it: what goes on for pages is cut, but with ``-v`` and in the document."""
        if self.verbosity > 0:
            return error
        problem, where = (_cut(text) if text else text for text in (error.problem, error.where))
        return TrtcrossError(problem or "", where=where, remedy=error.remedy)

    def finish(self) -> None:
        if self.as_json:
            self._print(json.dumps(self._document, indent=1), err=False)
        self.send(event="document", document=self._document)

    def _print(self, text: str, *, err: bool) -> None:
        """Prints a text. Where stdout takes no more, the verb goes on: its work is not to be lost for it."""
        try:
            click.echo(text, err=err)
        except OSError as error:
            if err:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # else a reader such as `head` has what it wanted
                self.unwritable = error

    def say_unwritable(self, error: OSError) -> None:
        problem = UsageError(f"stdout cannot be written to: {error.strerror}", remedy="make room, or write elsewhere")
        click.echo(f"error: {problem}", err=True)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a click command ``--json``, ``-q`` and ``-v``, a :class:`Output`, and our exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Say less.")
    @click.option("-v", "--verbose", count=True, help="Say more.")
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
    """Runs a verb; says what went wrong, and gives the exit code."""
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
    """The requirements as people read them; a remedy only where one is due."""
    lines = []
    for item in requirements:
        mark, color = _MARKS[item.state]
        text = f"{item.name}: needs {item.needed}; here: {item.found}"
        lines.append(f"  {click.style(mark, fg=color)}  {_wrapped(text)}")
        if item.state is not State.MET and item.remedy:
            lines.append(f"      {_wrapped(f'what to do: {item.remedy}')}")
    return lines


_INDENT = 6
_SHORT = 30  # a command that stands within a sentence


def _wrapped(text: str) -> str:
    """A text in lines that fit into the terminal, the further ones indented; one line where there is no terminal.

    A command that does not fit stays whole on a line of its own: with a line's end in it, it could not be pasted.
    """
    width = max(shutil.get_terminal_size().columns - _INDENT, 20)
    if not sys.stdout.isatty() or len(text) <= width:
        return text
    lines: list[str] = []
    prose = ""
    for piece, command in [*with_commands(text), ("", True)]:
        if not command or 0 < len(piece) <= _SHORT:
            prose += f"`{piece}`" if command else piece
            continue
        lines += textwrap.wrap(prose, width - 2, break_long_words=False, break_on_hyphens=False)
        lines += [piece] if piece else []
        prose = ""
    return f"\n{' ' * (_INDENT + 2)}".join(lines)
