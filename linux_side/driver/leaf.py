"""One of several builds, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from linux_side.driver.building import Prepared
from linux_side.driver.ear import OnEvent
from linux_side.driver.room import GUESS, thought_to_take
from linux_side.options import BuildOptions
from toolchain.artifact import Artifact
from toolchain.errors import TrtcrossError


@dataclass(eq=False)
class Leaf:
    """One of several builds.

    Attributes:
        memory: bytes that it is thought to take in a process that shares nothing; a guess until the model is there,
            where it is not given.
        log: what its processes print goes to the end of this file.
        listener: sees each event, from any thread.
    """

    model: str
    out: Path
    options: BuildOptions
    log: Path
    memory: int = 0
    name: str | None = None
    cache: bool = True
    listener: OnEvent | None = None
    prepared: Prepared = field(init=False)

    def __post_init__(self) -> None:
        self._guessed = not self.memory
        if self._guessed:
            self.memory = GUESS

    def weigh(self, weights: int | None) -> None:
        """Learns how big the model is, in bytes."""
        if self._guessed and weights is not None:
            self.memory = thought_to_take(weights, self.options)


@dataclass(frozen=True)
class Outcome:
    """How a build went.

    Attributes:
        artifact: open; None where there is an error.
        peak: the most memory that a process takes that shares nothing, in bytes; None where there was none.
        seconds: that its process took, without what it shares with others.
    """

    artifact: Artifact | None
    error: TrtcrossError | None
    peak: int | None = None
    seconds: float = 0.0
