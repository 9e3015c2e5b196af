"""Prints a plan for people, with a line for each cell."""

from __future__ import annotations

import click

from linux_side.matrix.planning.plan import Action, Plan, Planned
from toolchain.cli.output import Output
from toolchain.text import printable, size_text

_MARKS = {
    Action.BUILD: ("build", "green"),
    Action.FINISHED: ("done", "cyan"),
    Action.ELSEWHERE: ("elsewhere", "yellow"),
    Action.IMPOSSIBLE: ("impossible", "red"),
    Action.EXCLUDED: ("excluded", "bright_black"),
}


def show_plan(output: Output, made: Plan) -> None:
    """Prints what happens to each cell, and why."""
    width = max(len(item.cell.id) for item in made.cells)
    for item in made.cells:
        word, color = _MARKS[item.action]
        mark = click.style(f"{word:10}", fg=color)
        output.say(f"{mark} {item.cell.id:{width}}  {_words(item)}")
        for note in _notes(item):
            output.say(f"{'':10} {'':{width}}    {note}")


def _words(item: Planned) -> str:
    if item.action is not Action.BUILD or item.host is None:
        return printable(item.reason or "")
    if item.cached:
        return f"{item.host.name}, to {item.level}; from the build cache"
    return f"{item.host.name}, to {item.level}; about {size_text(item.memory)} of memory, by {item.memory_from}"


def _notes(item: Planned) -> list[str]:
    if item.elsewhere:
        return [f"{item.elsewhere.level} on {item.elsewhere.host.name}"]
    return [item.unverified] if item.unverified else []
