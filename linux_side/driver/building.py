"""``build``: a model in, an artifact out, by way of a child process."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linux_side.cache.key import file_key
from linux_side.cache.lookup import fetch, keep
from linux_side.cache.store import BuildCache
from linux_side.cache.times import Times, with_time_left
from linux_side.driver.room import Needs, require_room, saved_weights
from linux_side.driver.termination import ends_in_order
from linux_side.frontend.hub.folder import open_folder, require_task_of_folder
from linux_side.options import BuildOptions
from linux_side.precision_plan import PrecisionPlan, plan_path
from toolchain.artifact import Artifact, open_artifact
from toolchain.container.file_kind import file_kind
from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError, UsageError, error_from_json
from toolchain.factory import is_factory, require_factory
from toolchain.host.memory import free_memory
from toolchain.io.atomic import new_part, part_prefix
from toolchain.io.events import read_events, start_child
from toolchain.io.places import require_own_place
from toolchain.io.python_child import python_child
from toolchain.manifest.models import build_warnings
from toolchain.text import size_text

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OnEvent = Callable[[dict[str, Any]], None]


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
    """Compiles a model into an artifact. The caller's own torch is never touched.

    Args:
        model: an exported program, the path of one, ``module:factory``, ``./file.py:factory``, or with ``task``
            a Hugging Face model folder (``docs/build/models.md``).
        out: where the ``.pt2`` file goes; what is there is replaced when the new file is complete. Not the model's own.
            ``--precision auto`` writes its plan beside it: ``model.precision.json`` beside ``model.pt2``.
        options: every setting of the build. Give this or ``settings``.
        settings: the fields of :class:`BuildOptions` as keywords, such as ``precision="fp16"``.
        cache: whether to look in the build cache first, and to keep the artifact there (``docs/build/cache.md``).
        progress: sees each event (``docs/reference/api.md``): ``start`` and ``end`` of phases, ``progress`` within
            ``convert``, ``cached``, and ``warning`` with a ``text``. What it raises ends the build, and goes on to the
            caller.
        on_event: another name of ``progress``.
        log: what Torch-TensorRT and TensorRT print goes here.

    Returns:
        The artifact, open.

    Raises:
        UsageError, BuildFailedError, IncompatibleError, MissingComponentError: as the case may be.
    """
    if options is not None and settings:
        raise UsageError(
            f"options= and {', '.join(settings)}: two places for the same", where="build()", remedy="give one of them"
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
    """A build that has been looked at, and for which a process is to do the work.

    Args:
        spool: a folder of its own, for what is on its way to the artifact.
        name: the model's, where it is not its file's.
        listener: sees each event.

    Raises:
        UsageError: what is wrong for certain.
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
        self._times, self._named = Times(self._cache.folder if self._cache else None), str(model) if named else ""
        self.report = with_time_left(listener or (lambda _: None), self._times.of(self._named, options))
        self._name = name
        if named:
            self.model = str(model)
        else:
            self._name, self.model = save_model(model, spool)
        self._key: str | None = None

    def warn(self, text: str) -> None:
        self.report({"event": "warning", "text": text})

    def from_cache(self) -> Artifact | None:
        """The artifact, where the build cache has it and that can be told without torch; else there is room for it.

        Raises:
            BuildFailedError: there is no room.
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
        """What the process is given."""
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
        """The artifact, once the process has written it; kept in the cache."""
        artifact = open_artifact(self.out)
        if self._cache and not artifact.manifest.build.from_cache:
            keep(self._cache, artifact, self.warn)
            self._times.keep(self._named, self.options, artifact.manifest.build.seconds)
        return _with_plan(artifact, self.options)


def _with_plan(artifact: Artifact, options: BuildOptions) -> Artifact:
    """Writes the plan of ``--precision auto`` beside the artifact."""
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
    """Of ``build``, with the options by name: for ``help()`` and editors."""
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
    """The cache key, where a file tells it; the child process finds that of a factory."""
    try:
        return file_key(model, name, options) if model.is_file() else None
    except OSError:
        return None  # the child says what is wrong with the file


def save_model(program: Any, spool: Path) -> tuple[str, str]:
    """Saves a program for a process that builds it; its name, and the file.

    Raises:
        UsageError: it is no exported program.
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


def require_buildable(model: Any, out: Path, options: BuildOptions) -> None:
    """What is wrong for certain is said at once, not after seconds of imports in the child.

    Raises:
        UsageError: there is no such model, or ``out`` cannot be written.
    """
    task = options.task
    if isinstance(model, (str, os.PathLike)):
        _check_model(str(model), task)
    elif task is not None:
        require_task_of_folder(type(model).__name__, task)
    if out.suffix != ".pt2":
        raise UsageError(
            f"the artifact {out.name!r} must end in .pt2", where="-o", remedy="torch.export.load asks for it"
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(
            "the output is a folder, or its folder does not exist", where=f"-o {out}", remedy="name a file to write"
        )
    if isinstance(model, (str, os.PathLike)):
        require_own_place(out, model, where="-o")
    _require_writable(out)


def _require_writable(out: Path) -> None:
    """Makes the file that is moved into place at the end, and takes it away: whatever the reason, it shows now."""
    try:
        new_part(out).unlink()
    except OSError as error:
        raise UsageError(
            f"no file can be written there: {error.strerror}", where=f"-o {out}", remedy="name another place with -o"
        ) from error


def _check_model(model: str, task: str | None) -> None:
    require_task_of_folder(model, task)
    if Path(model).is_dir():
        open_folder(Path(model), task)
    elif Path(model).is_file():
        _check_kind(Path(model))
    elif is_factory(model):
        require_factory(model)
    else:
        raise UsageError(
            f"there is no model {model!r}",
            where="MODEL",
            remedy="give a .pt2 file that torch.export.save wrote, module:factory, ./file.py:factory or a model folder",
        )


def _check_kind(model: Path) -> None:
    if model.suffix == ".py":
        raise UsageError("this is a Python file", where=str(model), remedy=f"name a function in it: {model}:FACTORY")
    if kind := file_kind(model):
        raise UsageError(
            f"this is {kind.what}, not a program that torch.export.save wrote",
            where=str(model),
            remedy=kind.build_from,
        )


def run_alone(
    prepared: Prepared, log: IO[bytes], on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None
) -> None:
    """Builds in a process of its own.

    Args:
        on_start: is given the process.
    """
    start = log.tell() if log.seekable() else None
    command = python_child("linux_side.driver.worker", str(os.getpid()))
    child, events = start_child(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    ear = Ear(prepared.report)
    jobs = child.stdin
    if jobs is None:  # for the type checker: it is a pipe
        raise RuntimeError("the build process has no pipe")
    with child, events:
        try:
            on_start(child)
            with suppress(BrokenPipeError), jobs:  # it ended at once, and how is said below
                jobs.write(json.dumps(prepared.job()).encode())
            for event in read_events(events):
                ear.hear(event)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            remove_parts(prepared.out, child.pid)
    if error := ear.error_of(ProcessEnd.of(child.returncode), log, start):
        raise error


class Ear:
    """Hears a build process: passes on what it says, and knows at its end what was wrong."""

    def __init__(self, report: OnEvent) -> None:
        self._report = report
        self._error: TrtcrossError | None = None
        self._told: dict[str, Any] = {}

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "error":
            self._error = error_from_json(event["error"])
        else:
            self._told.update(event)
            self._report(event)

    def error_of(self, ended: ProcessEnd, log: IO[bytes], start: int | None) -> TrtcrossError | None:
        """What it said is wrong, or how it ended where it said nothing.

        Args:
            log: with what it printed, from ``start`` on.
        """
        if self._error is not None or not (ended.code or ended.signal):
            return self._error
        return _crashed(ended, log, start, self._told)


def remove_parts(out: Path, pid: int) -> None:
    """What a child that was killed left unfinished; another build's own part is not touched."""
    prefix = part_prefix(out, pid)
    for path in out.parent.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def _crashed(ended: ProcessEnd, log: IO[bytes], start: int | None, told: Mapping[str, Any]) -> BuildFailedError:
    """The error of a build process that ended without a document.

    Args:
        told: the newest of each member of the process's events.
    """
    tail = ""
    if start is not None and log.readable():
        log.seek(start)
        tail = "\n".join(log.read().decode(errors="replace").splitlines()[-15:])
    return BuildFailedError(
        f"the build process {ended}" + (f"; it said last:\n{tail}" if tail else ""),
        where=f"linux_side.driver.worker, phase {told.get('phase', 'import')!r}",
        remedy=_after_a_kill(told) if ended.killed else "please report it, with this text",
        ended=ended,
    )


def _after_a_kill(told: Mapping[str, Any]) -> str:
    remedy = "SIGKILL usually means too little memory: build on a bigger machine"
    if "memory" in told:
        thought, free = size_text(told["memory"]), size_text(free_memory())
        remedy += f", or in halves (this build was thought to need {thought}; {free} is free now)"
    return remedy
