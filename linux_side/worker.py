"""The child process of a build: one job in on stdin, events out on stdout, one JSON document a line.

Torch-TensorRT's import on a machine without a GPU, its process-wide registries and its memory stay in here.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from toolchain.errors import BuildFailedError, TrtcrossError


class Progress:
    """Tells the parent which phase runs, and remembers how long each took."""

    def __init__(self, events: TextIO) -> None:
        self._events = events
        self.seconds: dict[str, float] = {}

    def send(self, **event: Any) -> None:
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.send(event="start", phase=name)
        start = time.monotonic()
        try:
            yield
        except TrtcrossError:
            raise
        except Exception as error:  # of torch, Torch-TensorRT or the model: they raise whatever their parts raise
            line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise BuildFailedError(
                f"{type(error).__name__}: {line}",
                where=f"phase {name!r}",
                remedy="-v shows the whole report; keep an operator in PyTorch with --torch-executed-op",
            ) from error
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.send(event="end", phase=name, seconds=self.seconds[name])


def main() -> int:
    # Whatever prints to stdout meanwhile, the C++ side too, must not get between the events.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    progress = Progress(events)
    job = json.loads(sys.stdin.read())
    try:
        run_job(job, progress)
    except TrtcrossError as error:
        traceback.print_exc()
        progress.send(event="error", error=error.to_json())
        return 1
    progress.send(event="done")
    return 0


def run_job(job: dict[str, Any], progress: Progress) -> None:
    """Builds one artifact.

    Args:
        job: ``model`` (a path or ``module:factory``), ``name`` or None, ``out``, ``spool``, ``options``.
    """
    from linux_side.options import BuildOptions

    options = BuildOptions.model_validate(job["options"])
    with progress.phase("import"):
        from linux_side.backends import engine_builder

        builder = engine_builder(options.backend)
        builder.packages()
        builder.check_gpus(options.capabilities)
        builder.import_upstream(options.capabilities)
        from linux_side.pipeline import Pipeline
    pipeline = Pipeline(options, builder, Path(job["spool"]), progress.phase, progress.seconds)
    pipeline.run(job["model"], job["name"], Path(job["out"]))


if __name__ == "__main__":
    sys.exit(main())
