"""A requirement on a machine: met, not met or unknown, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum

import click


class State(str, Enum):
    MET = "met"
    NOT_MET = "not met"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Requirement:
    """One line of ``check`` or ``doctor``.

    Attributes:
        name: what is asked for, stable for scripts.
        state: whether this machine has it.
        needed: what the artifact (or the task) needs.
        found: what this machine has.
        remedy: what to do, where it is not met.
    """

    name: str
    state: State
    needed: str
    found: str
    remedy: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {**asdict(self), "state": self.state.value}


_MARKS = {State.MET: ("ok", "green"), State.NOT_MET: ("no", "red"), State.UNKNOWN: ("??", "yellow")}


def requirement_lines(requirements: Iterable[Requirement]) -> list[str]:
    """The requirements as people read them; a remedy only where one is due."""
    lines = []
    for item in requirements:
        mark, color = _MARKS[item.state]
        lines.append(f"  {click.style(mark, fg=color)}  {item.name}: needs {item.needed}; here: {item.found}")
        if item.state is not State.MET and item.remedy:
            lines.append(f"      what to do: {item.remedy}")
    return lines
