"""One of several builds, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from linux_side.driver.building import Prepared
from linux_side.driver.child_events import OnEvent
from linux_side.driver.room import GUESS, expected_memory
from linux_side.options import BuildOptions
from toolchain.artifact import Artifact
from toolchain.errors import TrtcrossError


@dataclass(eq=False)
class Leaf:
    """One of several builds.

    Attributes:
        model: the model, as ``trtcross build`` takes it.
        out: the artifact's path.
        options: its options.
        log: the file that what its processes print is appended to.
        memory: bytes that it is expected to take in a process that shares nothing. 0 makes it a guess until the size of
            the model is known.
        name: the model's name; None for the file's own.
        cache: whether to use the build cache.
        listener: receives each event, from any thread.
        prepared: the build after its first checks, set by the tree.
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
        """Replaces a guess of ``memory`` by an estimate from the model's bytes of weights."""
        if self._guessed and weights is not None:
            self.memory = expected_memory(weights, self.options)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a build.

    Attributes:
        artifact: the open artifact; None on an error.
        error: the error; None on success.
        peak: the peak memory in bytes of a process that would share nothing; None if no process was needed.
        seconds: the time of its own process, without shared stages.
    """

    artifact: Artifact | None
    error: TrtcrossError | None
    peak: int | None = None
    seconds: float = 0.0
