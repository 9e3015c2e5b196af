"""The work of one cell: builds and then verifies it. A job and its record are plain data that can cross machines."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from linux_side.matrix.execution.processes import Finished, Processes
from linux_side.matrix.records import ArtifactFacts, CellRecord, Step
from linux_side.matrix.spec.cells import Cell
from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError, error_from_json
from toolchain.io.hashing import file_digest

OnPhase = Callable[[str, str], None]


@dataclass(frozen=True)
class Job:
    """The work to do for a cell.

    Attributes:
        cell: the cell.
        digest: the cell's digest when it was planned.
        level: the level to verify to on the machine that builds it.
        artifact: the artifact's path.
        log: the log's path.
        memory: bytes that the build is expected to take.
        cache: whether the build uses the build cache.
        timeout: seconds that the build, and then the verification, may take; None for no limit.
        cwd: the folder in which modules and ``.pt2`` files are looked up.
    """

    cell: Cell
    digest: str
    level: str
    artifact: Path
    log: Path
    memory: int
    cache: bool = True
    timeout: float | None = None
    cwd: str = "."

    def build_arguments(self) -> list[str]:
        """Returns the arguments of ``trtcross`` that build the cell."""
        cache = [] if self.cache else ["--no-cache"]
        return ["build", *self.cell.build_arguments(), *cache, "-o", str(self.artifact)]

    def verify_arguments(self) -> list[str]:
        """Returns the arguments of ``trtcross`` that verify the artifact."""
        return ["verify", str(self.artifact), "--level", self.level]

    def reproduce(self) -> list[str]:
        """Returns shell lines that run this cell alone."""
        lines = [["cd", self.cwd], ["trtcross", *self.build_arguments(), "-v"], ["trtcross", *self.verify_arguments()]]
        return [shlex.join(line) for line in lines]


@dataclass(frozen=True)
class Built:
    """The outcome of a cell's build.

    Attributes:
        error: the error; None on success.
        manifest: the JSON of the artifact's manifest; None on an error.
        seconds: how long the build took.
        peak: its peak memory in bytes; None if unknown.
    """

    error: TrtcrossError | None
    manifest: dict[str, Any] | None
    seconds: float
    peak: int | None


def run_job(job: Job, processes: Processes, on_phase: OnPhase) -> CellRecord:
    """Builds and verifies a cell by the command line. A failure also gives a record.

    Args:
        job: the work.
        processes: starts the child processes.
        on_phase: called with the cell's identifier and each phase.

    Raises:
        Cancelled: the run was stopped.
    """
    started = datetime.now(timezone.utc)
    begin_log(job)
    on_phase(job.cell.id, "start")
    with job.log.open("ab") as log:
        done = _step(job, [*job.build_arguments(), "-v"], log, processes, on_phase)
    manifest = (done.document or {}).get("manifest")
    return verified(job, started, Built(done.error(), manifest, done.seconds, done.peak), processes, on_phase)


def begin_log(job: Job) -> None:
    """Creates the folders of a cell's files, and its log, which begins with the command line of its build."""
    job.artifact.parent.mkdir(parents=True, exist_ok=True)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.write_text(f"$ trtcross {shlex.join(job.build_arguments())}\n")


def verified(job: Job, started: datetime, built: Built, processes: Processes, on_phase: OnPhase) -> CellRecord:
    """Verifies a cell whose build has ended, unless it failed, and returns the cell's record.

    Args:
        job: the work.
        started: when the cell started.
        built: the outcome of the build.
        processes: starts the child processes.
        on_phase: called with the cell's identifier and each phase.

    Raises:
        Cancelled: the run was stopped.
    """
    error, done = built.error, None
    with job.log.open("ab") as log:
        if error is None:
            on_phase(job.cell.id, "verify")
            log.write(f"$ trtcross {shlex.join(job.verify_arguments())}\n".encode())
            log.flush()
            done = _step(job, job.verify_arguments(), log, processes, on_phase)
            error = done.error()
        if error is not None:
            log.write(f"\n{error}\n".encode(errors="replace"))
    return _record(job, started, built, done, error)


def lost_record(job: Job, error: TrtcrossError) -> CellRecord:
    """Returns the record of a cell whose machine or process was lost, so that only the error is known."""
    return CellRecord(
        **_common(job, datetime.now(timezone.utc), error),
        step="executor",
        build_seconds=None,
        verify_seconds=None,
        peak=None,
        artifact=None,
        levels=[],
    )


def _step(job: Job, arguments: list[str], log: IO[bytes], processes: Processes, on_phase: OnPhase) -> Finished:
    return processes.run(
        arguments,
        log,
        on_phase=lambda phase: on_phase(job.cell.id, phase),
        timeout=job.timeout,
        cwd=job.cwd,
    )


def _record(
    job: Job, started: datetime, built: Built, verified: Finished | None, error: TrtcrossError | None
) -> CellRecord:
    step: Step | None = None if error is None else "build" if verified is None else "verify"
    return CellRecord(
        **_common(job, started, error),
        step=step,
        build_seconds=round(built.seconds, 2),
        verify_seconds=round(verified.seconds, 2) if verified else None,
        peak=built.peak,
        artifact=_artifact(job, built.manifest) if verified and built.manifest else None,
        levels=(verified.document or {}).get("levels", []) if verified else [],
    )


def _common(job: Job, started: datetime, error: TrtcrossError | None) -> dict[str, Any]:
    return {
        "id": job.cell.id,
        "digest": job.digest,
        "spec_digest": job.cell.spec_digest(),
        "state": "failed" if error else "passed",
        "level": job.level,
        "error": error.to_json() if error else None,
        "host": socket.gethostname(),
        "started": started,
        "reproduce": job.reproduce(),
    }


def _artifact(job: Job, manifest: dict[str, Any]) -> ArtifactFacts:
    return ArtifactFacts(
        size=job.artifact.stat().st_size,
        sha256=file_digest(job.artifact),
        engines=len(manifest["engines"]),
        operators=manifest["coverage"]["operators"],
        in_engines=manifest["coverage"]["in_engines"],
        fallback={item["operator"]: item["count"] for item in manifest["fallback"]},
        runtime=manifest["target"]["runtime"],
        from_cache=manifest["build"]["from_cache"],
        cache_key=manifest["build"]["cache_key"],
        phases=manifest["build"]["seconds"],
    )


def was_killed(record: CellRecord) -> bool:
    """Returns whether a build was killed, which usually means too little memory."""
    ended = ProcessEnd.from_json((record.error or {}).get("ended"))
    return record.step == "build" and ended is not None and ended.killed


def failed_error(records: list[CellRecord]) -> TrtcrossError:
    """Returns the error of a run with failed cells, of the same class as the first one's error."""
    first = error_from_json(dict(records[0].error or {}))
    kind = type(first) if type(first) is not TrtcrossError else BuildFailedError
    return kind(
        f"{len(records)} cell(s) failed: {', '.join(record.id for record in records)}",
        where=records[0].id,
        remedy=f"{first.problem}\n  each log has the details; this runs one cell again:\n    "
        + "\n    ".join(records[0].reproduce),
    )
