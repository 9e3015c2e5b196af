"""A requirement on a machine: met, not met or unknown, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class State(str, Enum):
    """Whether a machine meets a requirement."""

    MET = "met"
    NOT_MET = "not met"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Requirement:
    """One line of ``check`` or ``doctor``.

    Attributes:
        name: the requirement's name, which is stable for scripts.
        state: whether this machine has it.
        needed: what the artifact (or the task) needs.
        found: what this machine has.
        remedy: what to do if it is not met.
    """

    name: str
    state: State
    needed: str
    found: str
    remedy: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {**asdict(self), "state": self.state.value}
