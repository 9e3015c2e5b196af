"""The child process of a build: reads one job from stdin and sends events on a pipe (``toolchain.io.events``).

``python -m linux_side.driver.worker PARENT`` exits when its parent exits, even if the parent is killed. The process
isolates the caller from Torch-TensorRT: its import on a machine without a GPU, its registries and its memory.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from linux_side.driver.allocator import give_freed_memory_back
from linux_side.driver.child_events import remove_parts
from linux_side.driver.end_with_parent import end_with_parent
from linux_side.driver.room import is_full
from linux_side.driver.stages import STAGES
from linux_side.driver.termination import ends_in_order
from toolchain.errors import BuildFailedError, TrtcrossError
from toolchain.io.events import EventWriter, events_to_parent
from toolchain.text import first_line

if TYPE_CHECKING:
    from linux_side.driver.pipeline import Pipeline

Job = dict[str, Any]

_STEPS = 1000  # the `total` of `progress` events
_STEP_SECONDS = 0.1


class BuildProgress:
    """Reports the phases of a build to the parent, and records how long each took.

    Attributes:
        send: sends one event.
        spool: the folder for temporary files, once it is known.
        seconds: the duration of each finished phase.
    """

    def __init__(self, events: EventWriter) -> None:
        self.send = events.send
        self.spool: Path | None = None
        self._stepped = 0.0
        self.seconds: dict[str, float] = {}

    def warn(self, texts: Iterable[str], **only: str) -> None:
        """Sends warnings for the user.

        Args:
            texts: the warnings.
            only: ``out``, if the warnings concern one build and not all that share this process.
        """
        for text in texts:
            self.send(event="warning", text=text, **only)

    def step(self, name: str, reached: float) -> None:
        """Reports the progress of ``convert``, at most every ``_STEP_SECONDS``. Any thread may call it.

        Args:
            name: the step that TensorRT's builder is in.
            reached: the fraction done, from 0 to 1.
        """
        now = time.monotonic()
        if now - self._stepped > _STEP_SECONDS:
            self._stepped = now
            self.send(event="progress", phase="convert", step=name, done=int(reached * _STEPS), total=_STEPS)

    @contextmanager
    def phase(self, name: str, **only: str) -> Iterator[None]:
        """Reports the start and the end of a phase, and turns foreign errors into build errors.

        Args:
            name: the phase.
            only: ``out``, if the phase concerns one build and not all that share this process.

        Raises:
            BuildFailedError: the block raised an error of torch, Torch-TensorRT or the model.
        """
        self.send(event="start", phase=name, **only)
        start = time.monotonic()
        try:
            yield
        except TrtcrossError:
            raise
        except Exception as error:  # torch, Torch-TensorRT and the model may raise any class
            if self.spool and is_full(self.spool):
                raise BuildFailedError(
                    f"the disk of the folder for temporary files is full: {first_line(error)}",
                    where=f"{self.spool}, phase {name!r}",
                    remedy="make room there, or name a folder on another disk with $TMPDIR",
                ) from error
            raise BuildFailedError(
                f"{type(error).__name__}: {first_line(error)}",
                where=f"phase {name!r}",
                remedy="-v shows the whole report; keep an operator in PyTorch with --torch-executed-op",
            ) from error
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.send(event="end", phase=name, seconds=self.seconds[name], **only)


def main() -> int:
    """Runs one build and reports it to the parent on a pipe; returns the exit code."""
    end_with_parent(int(sys.argv[1]))
    give_freed_memory_back()
    events = events_to_parent()
    if events is None:
        sys.exit("only trtcross build starts this process")
    progress = BuildProgress(events)
    job = json.loads(sys.stdin.read())
    try:
        Build().run([job], progress)
    except TrtcrossError as error:
        progress.send(event="error", error=error.to_json())
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
        return 1
    progress.send(event="done")
    return 0


class Build:
    """A build that can stop after a stage and continue with other options that agree up to that stage.

    A job has the members ``model`` (a path or a factory's name), ``name`` (or None), ``out``, ``spool``, ``options``
    (as JSON), ``cache`` (whether to use the build cache) and ``cache_key`` (the key under which the caller found
    nothing, or None if it could not look).

    Attributes:
        stage: the last stage done, one of ``linux_side.driver.stages``; None before the first.
    """

    def __init__(self) -> None:
        self.stage: str | None = None
        self._pipeline: Pipeline | None = None
        self._upstream = False
        self._keys: dict[str, str | None] = {}

    def run(self, jobs: Sequence[dict[str, Any]], progress: BuildProgress, until: str = "write") -> list[Job]:
        """Runs the stages that are not done yet, up to and including ``until``, with the first job's options.

        Args:
            jobs: the jobs that share these stages.
            progress: reports to the parent.
            until: the last stage to run.

        Returns:
            The jobs still to be built: without those found in the cache and those refused.
        """
        left, names = list(jobs), list(STAGES)
        if self._pipeline:
            self._take(left[0], progress)
        begin = names.index(self.stage) + 1 if self.stage else 0
        for stage in names[begin : names.index(until) + 1]:
            if stage == "import":
                self._import(left, progress)
                if until == stage:
                    self._import_upstream()
            elif stage == "export":
                left = self._export(left, progress)
            elif stage == "precision":
                self.pipeline.choose_precision(Path(left[0]["out"]))
            elif stage == "lower":
                self.pipeline.lower()
            elif stage == "convert":
                self.pipeline.convert()
            else:
                self._write(Path(left[0]["out"]))
            self.stage = stage
            if not left:
                break
        return left

    @property
    def weights(self) -> int | None:
        """Bytes of the model's weights; None before the export."""
        return self._pipeline.weights if self._pipeline and self.stage not in (None, "import") else None

    @property
    def pipeline(self) -> Pipeline:
        if self._pipeline is None:
            raise RuntimeError("nothing is imported yet")
        return self._pipeline

    def _import(self, jobs: Sequence[Job], progress: BuildProgress) -> None:
        from linux_side.options import BuildOptions

        job = jobs[0]
        options = BuildOptions.model_validate_json(job["options"])
        progress.spool = Path(job["spool"])
        with progress.phase("import"):
            from linux_side.backends import engine_builder

            builder = engine_builder(options.backend)
            builder.packages()
            if len(jobs) == 1:  # with several jobs `_export` checks each, so that one refusal does not end them all
                builder.check_gpus(options.capabilities)
            from linux_side.driver.pipeline import Pipeline

            gc.freeze()  # imported objects live to the end, so full collections need not visit them
        self._pipeline = Pipeline(options, builder, Path(job["spool"]), progress.phase)
        self._take(job, progress)

    def _import_upstream(self) -> None:
        if not self._upstream:
            self.pipeline.import_upstream()
            self._upstream = True

    def _take(self, job: Job, progress: BuildProgress) -> None:
        """Makes the pipeline continue with this job's options, folder, cache key and progress."""
        from linux_side.cache.notes import Notes
        from linux_side.cache.store import BuildCache
        from linux_side.options import BuildOptions

        pipeline = self.pipeline
        progress.seconds, progress.spool = {**pipeline.seconds, **progress.seconds}, Path(job["spool"])
        pipeline.options = BuildOptions.model_validate_json(job["options"])
        pipeline.move_to(Path(job["spool"]))
        pipeline.phase, pipeline.seconds, pipeline.warn = progress.phase, progress.seconds, progress.warn
        pipeline.started = time.monotonic() - sum(progress.seconds.values())
        pipeline.on_step = progress.step
        pipeline.on_needs = lambda needs: progress.send(event="estimate", memory=needs.memory)
        pipeline.cache_key = self._keys.get(job["out"])
        pipeline.notes = Notes(BuildCache() if job["cache"] else None, pipeline.cache_key)

    def _export(self, jobs: list[Job], progress: BuildProgress) -> list[Job]:
        """Exports the program, checks each job and looks for it in the cache; returns the jobs still to be built."""
        first, pipeline = jobs[0], self.pipeline
        saved = Path(first["model"]).is_file()
        if saved:  # a saved program may contain operators that Torch-TensorRT registers
            self._import_upstream()
        pipeline.load(first["model"], first["name"])
        left = []
        for job in jobs:
            self._take(job, progress)
            only = {"out": job["out"]} if len(jobs) > 1 else {}
            progress.warn(pipeline.golden_warnings(), **only)
            try:
                pipeline.require_sound()
                pipeline.builder.check_gpus(pipeline.options.capabilities)
                found = job["cache"] and self._cached(job, progress, **only)
            except TrtcrossError as error:
                if len(jobs) == 1:
                    raise
                progress.send(event="refused", out=job["out"], error=error.to_json())
                continue
            if not found:
                left.append(job)
        if left:
            self._take(left[0], progress)
            self._import_upstream()
        return left

    def _write(self, out: Path) -> None:
        """Writes the artifact, and on any error removes the partial file, which a killed parent could not."""
        with ends_in_order():
            try:
                self.pipeline.write(out)
            except BaseException:  # SIGTERM may arrive between any two steps of the writer
                remove_parts(out, os.getpid())
                raise

    def _cached(self, job: Job, progress: BuildProgress, **only: str) -> bool:
        """Determines the cache key, and fetches the artifact if the caller could not look for it.

        Returns:
            Whether the artifact came from the cache.
        """
        from linux_side.cache.key import file_key
        from linux_side.cache.lookup import fetch
        from linux_side.cache.store import BuildCache

        pipeline, out = self.pipeline, job["out"]
        if job["cache_key"] is not None:
            # If the file has changed since the caller took its digest, the key does not describe what was read.
            key = file_key(Path(job["model"]), job["name"], pipeline.options)
            self._keys[out] = key if key == job["cache_key"] else None
            return False
        with progress.phase("cache", **only):
            self._keys[out] = key = pipeline.program_key()
            seconds = progress.seconds
            found = fetch(BuildCache(), key, Path(out), seconds, lambda text: progress.warn([text], **only))
        if found:
            progress.send(event="cached", key=key, **only)
        return found


def end(code: int) -> NoReturn:
    """Runs the exit functions and ends the process, without the two seconds that Python needs to tear down torch."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
