"""The child process of a build: one job in on stdin, events out on a pipe (``toolchain.io.events``).

``python -m linux_side.driver.worker PARENT``: it ends when its parent does, a killed one too.

Torch-TensorRT's import on a machine without a GPU, its process-wide registries and its memory stay in here.
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
from linux_side.driver.ear import remove_parts
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

_STEPS = 1000
_STEP_SECONDS = 0.1


class BuildProgress:
    """Tells the parent which phase runs, and remembers how long each took.

    Attributes:
        spool: the folder for what is on its way to the artifact, once it is known.
    """

    def __init__(self, events: EventWriter) -> None:
        self.send = events.send
        self.spool: Path | None = None
        self._stepped = 0.0
        self.seconds: dict[str, float] = {}

    def warn(self, texts: Iterable[str], **only: str) -> None:
        """Tells what whoever builds must know.

        Args:
            only: ``out``, where it is of one build alone and not of all that share this process.
        """
        for text in texts:
            self.send(event="warning", text=text, **only)

    def step(self, name: str, reached: float) -> None:
        """Tells how far ``convert`` is, a few times a second; any thread may call it."""
        now = time.monotonic()
        if now - self._stepped > _STEP_SECONDS:
            self._stepped = now
            self.send(event="progress", phase="convert", step=name, done=int(reached * _STEPS), total=_STEPS)

    @contextmanager
    def phase(self, name: str, **only: str) -> Iterator[None]:
        self.send(event="start", phase=name, **only)
        start = time.monotonic()
        try:
            yield
        except TrtcrossError:
            raise
        except Exception as error:  # of torch, Torch-TensorRT or the model: they raise whatever their parts raise
            if self.spool and is_full(self.spool):
                raise BuildFailedError(
                    f"the disk of the folder for what is on its way to the artifact is full: {first_line(error)}",
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
    """Runs one build in this process, whose parent listens on a pipe; returns the exit code."""
    end_with_parent(int(sys.argv[1]))
    give_freed_memory_back()
    events = events_to_parent()
    if events is None:
        sys.exit("trtcross build starts this process, and listens to it")
    progress = BuildProgress(events)
    job = json.loads(sys.stdin.read())
    try:
        Build().run([job], progress)
    except TrtcrossError as error:
        progress.send(event="error", error=error.to_json())
        with suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        return 1
    progress.send(event="done")
    return 0


class Build:
    """A build, which can be stopped after a stage, and go on with other options that agree up to there.

    A job is ``model`` (a path or a factory's name), ``name`` or None, ``out``, ``spool``, ``options`` as JSON;
    ``cache``: whether to use the build cache, and ``cache_key``, under which the caller found nothing, or None.

    Attributes:
        stage: the last one that is done, of ``linux_side.driver.stages``; None before the first.
    """

    def __init__(self) -> None:
        self.stage: str | None = None
        self._pipeline: Pipeline | None = None
        self._upstream = False
        self._keys: dict[str, str | None] = {}

    def run(self, jobs: Sequence[dict[str, Any]], progress: BuildProgress, until: str = "write") -> list[Job]:
        """Does the stages from where it is up to this one, by the first job's options.

        Args:
            jobs: those that share these stages.

        Returns:
            Those that are still to be built: not those that the cache has, nor those that are refused.
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
        """Bytes of the model's weights, once it is exported."""
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
            if len(jobs) == 1:  # else what is wrong with one would end them all
                builder.check_gpus(options.capabilities)
            from linux_side.driver.pipeline import Pipeline

            gc.freeze()  # what was imported stays: each full collection would look through all of it
        self._pipeline = Pipeline(options, builder, Path(job["spool"]), progress.phase)
        self._take(job, progress)

    def _import_upstream(self) -> None:
        if not self._upstream:
            self.pipeline.import_upstream()
            self._upstream = True

    def _take(self, job: Job, progress: BuildProgress) -> None:
        """Goes on with this job's options, and tells of it."""
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
        """Exports, and looks for each job in the cache."""
        first, pipeline = jobs[0], self.pipeline
        saved = Path(first["model"]).is_file()
        if saved:  # a saved program may hold operators that Torch-TensorRT brings
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
        """Leaves no part of the artifact beside it: where the parent was killed, nobody else removes one."""
        with ends_in_order():
            try:
                self.pipeline.write(out)
            except BaseException:  # it may be told to end between any two steps of the writer's
                remove_parts(out, os.getpid())
                raise

    def _cached(self, job: Job, progress: BuildProgress, **only: str) -> bool:
        """Finds the cache key; writes the artifact if the caller could not look for it, and the cache has it."""
        from linux_side.cache.key import file_key
        from linux_side.cache.lookup import fetch
        from linux_side.cache.store import BuildCache

        pipeline, out = self.pipeline, job["out"]
        if job["cache_key"] is not None:
            # Not if the file was written to since: what was read is then of no known content.
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
    """Ends the process without taking Python apart, which takes torch two seconds and nobody waits for.

    What asked to be called at the end is called.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
