"""The run folder: one record, one artifact and one log for each cell, and a lock on the whole.

::

    .matrix/NAME/
      lock, holder.json       one run at a time, and who it is
      memory.json             what past builds took
      cells/ID.json           the outcome of a cell, written atomically
      artifacts/ID.pt2
      logs/ID.log
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, Field, JsonValue, ValidationError

from linux_side.matrix.spec.cells import Cell
from toolchain.checker.structure import LEVELS, Level
from toolchain.errors import UsageError
from toolchain.io.atomic import read_json, write_json, write_text
from toolchain.io.hashing import file_digest
from toolchain.strict_model import StrictModel

Step = Literal["build", "verify", "executor"]


class ArtifactFacts(StrictModel):
    """The facts about an artifact in the record of its cell."""

    size: int
    sha256: str
    engines: int
    operators: int
    in_engines: int
    fallback: dict[str, int] = Field(description="operators that stay in PyTorch, with counts")
    runtime: str
    from_cache: bool
    cache_key: str | None
    phases: dict[str, float] = Field(description="seconds of each phase of the build")


class CellRecord(StrictModel):
    """The outcome of a cell.

    Attributes:
        id: the cell's identifier.
        digest: the result of :meth:`Cell.digest` when and where the cell was planned.
        spec_digest: the result of :meth:`Cell.spec_digest`.
        state: whether the cell passed.
        step: the step that failed; None if the cell passed.
        level: the level that the artifact was to be verified to, and was if the cell passed.
        error: the error's JSON; None if the cell passed.
        host: the name of the machine that ran it.
        started: when the cell started.
        build_seconds: the duration of the build.
        verify_seconds: the duration of the verification.
        peak: the peak memory of the build, in bytes.
        artifact: the facts about the artifact; None if there is none.
        levels: the report of ``verify`` on each level.
        reproduce: shell lines that run this cell alone.
    """

    version: Literal[1] = 1
    id: str
    digest: str
    spec_digest: str
    state: Literal["passed", "failed"]
    step: Step | None
    level: Level
    error: dict[str, JsonValue] | None
    host: str
    started: AwareDatetime = Field(strict=False)
    build_seconds: float | None
    verify_seconds: float | None
    peak: int | None
    artifact: ArtifactFacts | None
    levels: list[dict[str, JsonValue]]
    reproduce: list[str]


class RunFolder:
    """A run folder. Reading it needs no lock.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def memory(self) -> Path:
        """The file with the peaks and weights that past builds have shown."""
        return self.path / "memory.json"

    def artifact(self, cell: str) -> Path:
        """Returns the path of a cell's artifact."""
        return self.path / "artifacts" / f"{cell}.pt2"

    def log(self, cell: str) -> Path:
        """Returns the path of a cell's log."""
        return self.path / "logs" / f"{cell}.log"

    def record_path(self, cell: str) -> Path:
        """Returns the path of a cell's record."""
        return self.path / "cells" / f"{cell}.json"

    def record(self, cell: str) -> CellRecord | None:
        """Returns a cell's record; None if it is missing or damaged."""
        document = read_json(self.record_path(cell))
        with contextlib.suppress(ValidationError):
            return CellRecord.model_validate(document) if document else None
        return None

    def finished(self, cell: Cell, level: str) -> CellRecord | None:
        """Returns the record of a finished cell; None if it must be built.

        A cell is finished if its record passed with the same digest and at least the same level, and if its artifact is
        unchanged.
        """
        record, path = self.record(cell.id), self.artifact(cell.id)
        if record is None or record.artifact is None or record.state != "passed":
            return None
        if record.digest != cell.digest() or LEVELS.index(record.level) < LEVELS.index(level):
            return None
        same_size = path.is_file() and path.stat().st_size == record.artifact.size
        return record if same_size and file_digest(path) == record.artifact.sha256 else None

    def write(self, record: CellRecord) -> None:
        """Writes a cell's record."""
        write_json(self.record_path(record.id), record.model_dump(mode="json"))

    @contextlib.contextmanager
    def hold(self, command: str) -> Iterator[None]:
        """Creates the folder, and locks it against other runs for the duration of the block.

        Args:
            command: this run's command line, for the message to other runs.

        Raises:
            UsageError: another run holds the folder, or it cannot be written to.
        """
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            for name in ("cells", "artifacts", "logs"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise self._held() from None
        except OSError as error:
            raise UsageError(
                f"the run folder cannot be written to: {error}", where=str(self.path), remedy="name another with --out"
            ) from error
        try:
            with contextlib.suppress(OSError):  # these files are a courtesy, and not worth failing a run
                write_text(self.path / ".gitignore", "*\n")
                write_json(self.path / "holder.json", _holder(command))
            yield
        finally:
            lock.release()

    def _held(self) -> UsageError:
        holder: dict[str, Any] = read_json(self.path / "holder.json") or {}
        who = "another process"
        if holder:
            who = "process {pid} of {user} on {host}, since {since} ({command})".format_map(_Missing(holder))
        return UsageError(
            f"{who} is at work in this run folder",
            where=str(self.path),
            remedy="wait for it, or name another folder with --out",
        )


class _Missing(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _holder(command: str) -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # the user of a container may have no name
        user = str(os.getuid())
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "user": user, "host": socket.gethostname(), "since": since, "command": command}


def own_command() -> str:
    """Returns the command line of this process, for people."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
