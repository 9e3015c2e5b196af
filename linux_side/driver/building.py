"""``build``: compiles a model into an artifact in a child process."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linux_side.cache.key import file_key
from linux_side.cache.lookup import fetch, keep
from linux_side.cache.store import BuildCache
from linux_side.cache.times import Times, with_time_left
from linux_side.driver.child_events import ChildEvents, OnEvent, remove_parts
from linux_side.driver.early_refusals import require_buildable
from linux_side.driver.room import Needs, require_room, saved_weights
from linux_side.driver.termination import ends_in_order
from linux_side.options import BuildOptions
from linux_side.precision_plan import PrecisionPlan, plan_path
from toolchain.artifact import Artifact, open_artifact
from toolchain.errors import BuildFailedError, ProcessEnd, UsageError
from toolchain.io.events import read_events, start_child
from toolchain.io.python_child import python_child
from toolchain.manifest.models import build_warnings

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def build(
    model: ExportedProgram | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    options: BuildOptions | None = None,
    cache: bool = True,
    progress: OnEvent | None = None,
    on_event: OnEvent | None = None,
    log: IO[bytes] | None = None,
    **settings: Any,
) -> Artifact:
    """Compiles a model into an artifact, in a child process that leaves the caller's torch untouched.

    Args:
        model: an exported program, the path of one, ``module:factory``, ``./file.py:factory``, or with ``task``
            a Hugging Face model folder (``docs/build/models.md``).
        out: the ``.pt2`` file to write. An existing file is replaced once the new one is complete. It must not be the
            model's own file. ``precision="auto"`` also writes a plan: ``model.precision.json`` beside ``model.pt2``.
        options: the settings of the build. Give this or ``settings``.
        cache: whether to look in the build cache first, and to store the artifact there (``docs/build/cache.md``).
        progress: receives each event (``docs/reference/api.md``): ``start`` and ``end`` of phases, ``progress`` within
            ``convert``, ``estimate``, ``cached``, and ``warning`` with a ``text``. An exception that it raises ends the
            build and propagates to the caller.
        on_event: another name of ``progress``.
        log: receives what Torch-TensorRT and TensorRT print.
        settings: the fields of :class:`BuildOptions` as keywords, such as ``precision="fp16"``.

    Returns:
        The open artifact.

    Raises:
        UsageError: the model, ``out`` or an option is wrong.
        BuildFailedError: the model cannot be compiled, or memory or disk space is short.
        IncompatibleError: the backend ``tensorrt`` cannot build for these GPUs on this machine.
        MissingComponentError: a package that the build needs is not installed.
    """
    if options is not None and settings:
        raise UsageError(
            f"options= and keywords ({', '.join(settings)}) are both given", where="build()", remedy="give one of them"
        )
    if progress is not None and on_event is not None:
        raise UsageError("progress and on_event are the same", where="build()", remedy="give progress alone")
    options = BuildOptions(**settings) if options is None else options
    with ends_in_order(), tempfile.TemporaryDirectory(prefix="trtcross-") as folder:
        prepared = Prepared(model, Path(out), options, Path(folder), cache=cache, listener=progress or on_event)
        if found := prepared.from_cache():
            return found
        with tempfile.TemporaryFile() as default_log:
            run_alone(prepared, log or default_log)
        return prepared.finished()


class Prepared:
    """A build that has passed the early checks and is ready for a build process.

    Args:
        model: the model, as :func:`build` takes it.
        out: the artifact's path.
        options: its options.
        spool: a folder for the build's temporary files.
        cache: whether to use the build cache.
        name: the model's name, if it is not the file's own.
        listener: receives each event.

    Raises:
        UsageError: the build cannot succeed.
    """

    def __init__(
        self,
        model: ExportedProgram | str | os.PathLike[str],
        out: Path,
        options: BuildOptions,
        spool: Path,
        *,
        cache: bool,
        name: str | None = None,
        listener: OnEvent | None = None,
    ) -> None:
        require_buildable(model, out, options)
        named = isinstance(model, (str, os.PathLike))
        self.out, self.options, self.spool = out, options, spool
        self._cache = BuildCache() if cache else None
        if self._cache and not self._cache.limit:
            self._cache = None
        self._times = Times(self._cache.folder if self._cache else None)
        # Times are recorded by the model's name. A program of the caller's that was saved for several builds comes with
        # a name and a temporary path, which means nothing to the next build.
        self._named = str(model) if named and name is None else ""
        self.report = with_time_left(listener or (lambda _: None), self._times.of(self._named, options))
        self._name = name
        if named:
            self.model = str(model)
        else:
            self._name, self.model = save_model(model, spool)
        self._key: str | None = None

    def warn(self, text: str) -> None:
        """Reports a warning as an event."""
        self.report({"event": "warning", "text": text})

    def from_cache(self) -> Artifact | None:
        """Fetches the artifact from the build cache, if its key can be computed without torch.

        If the artifact is not in the cache, checks the memory and the disk for the build.

        Returns:
            The open artifact, or None if it must be built.

        Raises:
            BuildFailedError: there is too little memory or disk, or the artifact cannot be written.
        """
        self._key = _early_key(Path(self.model), self._name, self.options) if self._cache else None
        if self._cache and self._key and fetch(self._cache, self._key, self.out, {}, self.warn):
            self.report({"event": "cached", "key": self._key})
            found = open_artifact(self.out)
            for text in build_warnings(found.manifest):
                self.warn(text)
            return _with_plan(found, self.options)
        if self._named:
            require_room(Needs.of(saved_weights(Path(self._named)), self.options), self.spool, self.out, self.warn)
        return None

    def job(self) -> dict[str, Any]:
        """Returns the job for the build process (``linux_side.driver.worker.Build``)."""
        return {
            "model": self.model,
            "name": self._name,
            "out": str(self.out),
            "spool": str(self.spool),
            "options": self.options.model_dump_json(),
            "cache": self._cache is not None,
            "cache_key": self._key,
        }

    def finished(self) -> Artifact:
        """Opens the artifact that the build process has written, and stores it in the cache."""
        artifact = open_artifact(self.out)
        if self._cache and not artifact.manifest.build.from_cache:
            keep(self._cache, artifact, self.warn)
            self._times.keep(self._named, self.options, artifact.manifest.build.seconds)
        return _with_plan(artifact, self.options)


def _with_plan(artifact: Artifact, options: BuildOptions) -> Artifact:
    """Writes the plan of a build with ``--precision auto`` beside the artifact, and returns the artifact."""
    record = artifact.manifest.precision
    if options.precision == "auto" and record:
        reached = max((error for error in record.errors if error is not None), default=None)
        plan = PrecisionPlan(
            precision=record.halves, keep_fp32=record.keep_fp32, tolerance=options.relative_l2, reached=reached
        )
        path = plan_path(artifact.path)
        try:
            plan.write(path)
        except OSError as error:
            artifact.close()
            raise BuildFailedError(
                f"the artifact is written, but its precision plan cannot be: {error}",
                where=str(path),
                remedy="make room for it, and build again: the artifact comes from the cache",
            ) from error
    return artifact


def _signature() -> inspect.Signature:
    """Returns the signature of ``build`` with each option as a keyword, for ``help()`` and editors."""
    own = inspect.signature(build)
    settings = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.get_default(call_default_factory=True),
            annotation=field.annotation,
        )
        for name, field in BuildOptions.model_fields.items()
    ]
    return own.replace(parameters=[*list(own.parameters.values())[:-1], *settings])


build.__signature__ = _signature()  # type: ignore[attr-defined]


def _early_key(model: Path, name: str | None, options: BuildOptions) -> str | None:
    """Returns the cache key if the model is a file. The child process computes that of any other model."""
    try:
        return file_key(model, name, options) if model.is_file() else None
    except OSError:
        return None  # the child reports what is wrong with the file


def save_model(program: Any, spool: Path) -> tuple[str, str]:
    """Saves a program for the build process.

    Returns:
        The model's name, and the file's path.

    Raises:
        UsageError: ``program`` is not an exported program.
    """
    import torch

    if not isinstance(program, torch.export.ExportedProgram):
        raise UsageError(
            f"a {type(program).__name__} is not an exported program",
            where="build()",
            remedy="pass torch.export.export(model, args)",
        )
    from linux_side.frontend.program_file import save_program

    path = spool / "input.pt2"
    save_program(program, path)
    return type(program.graph_module).__name__, str(path)


def run_alone(
    prepared: Prepared, log: IO[bytes], on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None
) -> None:
    """Builds in a process of its own, and removes its partial files.

    Args:
        prepared: the build.
        log: receives what the process prints.
        on_start: called with the process when it has started.

    Raises:
        TrtcrossError: the build failed, with the error that the process reported or one that describes its end.
    """
    start = log.tell() if log.seekable() else None
    command = python_child("linux_side.driver.worker", str(os.getpid()))
    child, events = start_child(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    child_events = ChildEvents(prepared.report)
    jobs = child.stdin
    if jobs is None:  # never: `stdin` is a pipe
        raise RuntimeError("the build process has no pipe")
    with child, events:
        try:
            on_start(child)
            with suppress(BrokenPipeError), jobs:  # a process that ended at once is reported below
                jobs.write(json.dumps(prepared.job()).encode())
            for event in read_events(events):
                child_events.add(event)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            remove_parts(prepared.out, child.pid)
    if error := child_events.error_of(ProcessEnd.of(child.returncode), log, start):
        raise error
