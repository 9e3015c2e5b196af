"""The process that :mod:`.warm` starts: it loads the artifact, calls it, and writes a line for each event."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from toolchain.artifact import Artifact, open_artifact
from toolchain.errors import IncompatibleError, TrtcrossError, UsageError
from windows_side.kernel_files import logger as cache_logger
from windows_side.options import LoadOptions
from windows_side.preflight.requirements import Runtime

Call = Callable[[Sequence[Sequence[int] | None]], None]


class _Complaints(logging.Handler):
    """Collects the warnings of writing kernels, which let no call fail."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def run(job: dict[str, Any], events: TextIO) -> None:
    """Makes every call of a job.

    Raises:
        TrtcrossError: loading or a call failed.
        UsageError: kernels could not be written.
    """
    complaints = _Complaints()
    cache_logger.addHandler(complaints)
    with open_artifact(job["artifact"]) as artifact:
        for cuda_graphs in job["cuda_graphs"]:
            _calls(job, artifact, cuda_graphs, events)
    if complaints.texts:
        raise UsageError(complaints.texts[0], where="the runtime cache", remedy="make room, or name another folder")
    _send(events, kind="done")


def _calls(job: dict[str, Any], artifact: Artifact, cuda_graphs: bool, events: TextIO) -> None:
    options = LoadOptions(**job["options"], runtime_cache=job["folder"], cuda_graphs=cuda_graphs)
    opened = _in_torch if job["runtime"] == Runtime.TORCH.value else _in_session
    with ExitStack() as stack:
        call: Call | None = None
        for wanted in job["calls"]:
            start, described = time.monotonic(), {"sizes": wanted["sizes"], "cuda_graphs": cuda_graphs}
            _send(events, kind="start", **described, seconds=0.0)
            call = call or stack.enter_context(opened(artifact, options))
            try:
                call(wanted["shapes"])
            except IncompatibleError:
                # A model that cannot be captured is called without graphs, and those kernels are there already.
                if not cuda_graphs:
                    raise
            _send(events, kind="end", **described, seconds=time.monotonic() - start)


@contextmanager
def _in_torch(artifact: Artifact, options: LoadOptions) -> Iterator[Call]:
    import torch

    from windows_side.execution.call import call_of
    from windows_side.loader.loading import load_artifact

    model, specs = load_artifact(artifact, options), artifact.manifest.inputs

    def call(shapes: Sequence[Sequence[int] | None]) -> None:
        leaves = [
            spec.value if shape is None else torch.zeros(tuple(shape), dtype=getattr(torch, str(spec.dtype)))
            for spec, shape in zip(specs, shapes, strict=True)
        ]
        args, kwargs = call_of(artifact.manifest, leaves, model.device)
        model(*args, **kwargs)
        torch.cuda.synchronize(model.device)

    yield call
    model.keep_kernels()


@contextmanager
def _in_session(artifact: Artifact, options: LoadOptions) -> Iterator[Call]:
    import numpy as np

    from windows_side.session.dtypes import numpy_dtype
    from windows_side.session.opening import open_session

    with open_session(artifact, options) as session:

        def call(shapes: Sequence[Sequence[int] | None]) -> None:
            session.run_leaves(
                [
                    spec.value if shape is None else np.zeros(tuple(shape), numpy_dtype(str(spec.dtype)))
                    for spec, shape in zip(artifact.manifest.inputs, shapes, strict=True)
                ]
            )

        yield call


def _send(events: TextIO, **event: Any) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


def _end_with_parent() -> None:
    """Ends this process when its stdin ends: the parent has closed it, or was killed."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _main(job: str, said: str) -> None:
    _end_with_parent()
    with Path(said).open("a", encoding="utf-8") as events:
        try:
            run(json.loads(Path(job).read_text("utf-8")), events)
        except TrtcrossError as error:
            _send(events, error=error.to_json())


if __name__ == "__main__":
    _main(*sys.argv[1:])
