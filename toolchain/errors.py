"""The errors that trtcross raises on purpose: each kind of failure has a class and an exit code of its own."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class TrtcrossError(Exception):
    """Base class of every error that trtcross raises on purpose.

    Args:
        problem: what is wrong, as one sentence.
        where: the file, entry, node or option that has the problem.
        remedy: what to do next.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  what to do: {self.remedy}")
        # Text that comes from a file must not control the terminal.
        return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], "\n".join(lines))

    def to_json(self) -> dict[str, object]:
        """Returns the ``error`` member of a ``--json`` document."""
        return {
            "kind": type(self).__name__,
            "problem": self.problem,
            "where": self.where,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


class UsageError(TrtcrossError):
    """The request itself is wrong: an option, a name or a combination that does not exist."""

    exit_code = 2


class IncompatibleError(TrtcrossError):
    """The artifact is sound, but cannot be used on this machine or for this target."""

    exit_code = 3


class MalformedArtifactError(TrtcrossError):
    """The artifact is damaged, malformed, or of a version that this release does not know."""

    exit_code = 4

    def __init__(
        self, problem: str, *, where: str | None = None, remedy: str | None = "get the file again, or build it again"
    ) -> None:
        super().__init__(problem, where=where, remedy=remedy)


class UntrustedError(TrtcrossError):
    """The artifact would make the reader run code that nobody has vouched for."""

    exit_code = 5


class WrongNumbersError(TrtcrossError):
    """The artifact runs, but its outputs are outside the tolerance."""

    exit_code = 6


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended: with an exit code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, returncode: int) -> ProcessEnd:
        """Reads a return code of ``subprocess``, where a negative number is a signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    @classmethod
    def from_json(cls, document: object) -> ProcessEnd | None:
        """Reads what :meth:`to_json` wrote; returns None if ``document`` is no mapping."""
        if not isinstance(document, Mapping):
            return None
        known = {name: document.get(name) for name in ("code", "signal")}
        return cls(**{name: number for name, number in known.items() if type(number) is int})

    def to_json(self) -> dict[str, int]:
        """Returns ``code`` or ``signal``, whichever is known."""
        return {name: number for name, number in asdict(self).items() if number is not None}

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it, as Linux does to a process when memory runs out."""
        return self.signal is not None and self.signal == getattr(signal, "SIGKILL", None)

    def __str__(self) -> str:
        if self.signal is None:
            return f"ended with code {self.code}"
        named = self.signal in {item.value for item in signal.Signals}
        return "was killed by " + (signal.Signals(self.signal).name if named else f"signal {self.signal}")


class BuildFailedError(TrtcrossError):
    """The model could not be exported, lowered, converted or written.

    Args:
        ended: how the build process ended, if that is the problem.
    """

    exit_code = 7

    def __init__(
        self, problem: str, *, where: str | None = None, remedy: str | None = None, ended: ProcessEnd | None = None
    ) -> None:
        super().__init__(problem, where=where, remedy=remedy)
        self.ended = ended

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **({"ended": self.ended.to_json()} if self.ended else {})}


class MissingComponentError(TrtcrossError):
    """A package or library that this step needs is not installed."""

    exit_code = 8


_BY_NAME = {
    error.__name__: error
    for error in (
        TrtcrossError,
        UsageError,
        IncompatibleError,
        MalformedArtifactError,
        UntrustedError,
        WrongNumbersError,
        BuildFailedError,
        MissingComponentError,
    )
}


def error_from_json(document: dict[str, object]) -> TrtcrossError:
    """Inverse of :meth:`TrtcrossError.to_json`, for errors that cross a process boundary."""
    kind = _BY_NAME.get(str(document.get("kind")), TrtcrossError)
    where, remedy = document.get("where"), document.get("remedy")
    error = kind(
        str(document.get("problem")),
        where=None if where is None else str(where),
        remedy=None if remedy is None else str(remedy),
    )
    if isinstance(error, BuildFailedError):
        error.ended = ProcessEnd.from_json(document.get("ended"))
    return error


def unexpected(error: Exception) -> TrtcrossError:
    """Wraps an exception that nobody foresaw, which is a bug, for the report to the user."""
    return TrtcrossError(
        f"this should not have happened: {type(error).__name__}: {error}",
        remedy="report it, with the lines above",
    )
