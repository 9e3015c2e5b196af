"""The child process of a build: one job in on stdin, events out on a pipe (``toolchain.io.events``).

``python -m linux_side.driver.worker PARENT``: it ends when its parent does, a killed one too.

Torch-TensorRT's import on a machine without a GPU, its process-wide registries and its memory stay in here.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from linux_side.driver.allocator import give_freed_memory_back
from linux_side.driver.end_with_parent import end_with_parent
from linux_side.driver.room import is_full
from toolchain.errors import BuildFailedError, TrtcrossError
from toolchain.io.events import EventWriter, events_to_parent
from toolchain.text import first_line

if TYPE_CHECKING:
    from linux_side.driver.pipeline import Pipeline
    from linux_side.frontend.source import Source


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

    def warn(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.send(event="warning", text=text)

    def step(self, name: str, reached: float) -> None:
        """Tells how far ``convert`` is, a few times a second; any thread may call it."""
        now = time.monotonic()
        if now - self._stepped > _STEP_SECONDS:
            self._stepped = now
            self.send(event="progress", phase="convert", step=name, done=int(reached * _STEPS), total=_STEPS)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.send(event="start", phase=name)
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
        self.send(event="end", phase=name, seconds=self.seconds[name])


def main() -> int:
    end_with_parent(int(sys.argv[1]))
    give_freed_memory_back()
    events = events_to_parent()
    if events is None:
        sys.exit("trtcross build starts this process, and listens to it")
    progress = BuildProgress(events)
    job = json.loads(sys.stdin.read())
    try:
        build_job(job, progress)
    except TrtcrossError as error:
        traceback.print_exc()
        progress.send(event="error", error=error.to_json())
        return 1
    progress.send(event="done")
    return 0


def build_job(job: dict[str, Any], progress: BuildProgress) -> None:
    """Builds one artifact.

    Args:
        job: ``model`` (a path or a factory's name), ``name`` or None, ``out``, ``spool``, ``options`` as JSON;
            ``cache``: whether to use the build cache, and ``cache_key``, under which the caller found nothing, or None.
    """
    from linux_side.options import BuildOptions

    options = BuildOptions.model_validate_json(job["options"])
    progress.spool = Path(job["spool"])
    with progress.phase("import"):
        from linux_side.backends import engine_builder

        builder = engine_builder(options.backend)
        builder.packages()
        builder.check_gpus(options.capabilities)
        from linux_side.driver.pipeline import Pipeline
    pipeline = Pipeline(options, builder, Path(job["spool"]), progress.phase, progress.seconds, warn=progress.warn)
    pipeline.on_step = progress.step
    pipeline.on_needs = lambda needs: progress.send(event="estimate", memory=needs.memory)
    saved = Path(job["model"]).is_file()
    if saved:  # a saved program may hold operators that Torch-TensorRT brings
        pipeline.import_upstream()
    source = pipeline.load(job["model"], job["name"])
    progress.warn(source.golden.warnings)
    if job["cache"] and _cached(job, pipeline, source, progress):
        return
    if not saved:
        pipeline.import_upstream()
    pipeline.run_source(source, Path(job["out"]))


def _cached(job: dict[str, Any], pipeline: Pipeline, source: Source, progress: BuildProgress) -> bool:
    """Sets the cache key; writes the artifact if the caller could not look for it, and the cache has it."""
    from linux_side.cache.key import file_key
    from linux_side.cache.lookup import fetch
    from linux_side.cache.notes import Notes
    from linux_side.cache.store import BuildCache

    cache = BuildCache()
    if job["cache_key"] is not None:
        # Not if the file was written to since: what was read is then of no known content.
        key = file_key(Path(job["model"]), job["name"], pipeline.options)
        pipeline.cache_key = key if key == job["cache_key"] else None
        pipeline.notes = Notes(cache, pipeline.cache_key)
        return False
    with progress.phase("cache"):
        pipeline.cache_key = key = pipeline.program_key(source)
        out, seconds = Path(job["out"]), progress.seconds
        pipeline.notes = Notes(cache, key)
        found = fetch(cache, key, out, seconds, lambda text: progress.send(event="warning", text=text))
    if found:
        progress.send(event="cached", key=key)
    return found


def end(code: int) -> NoReturn:
    """Ends the process without taking Python apart, which takes torch two seconds and nobody waits for.

    What asked to be called at the end is called.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
