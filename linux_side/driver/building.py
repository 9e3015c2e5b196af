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
    out = Path(out)
    options = BuildOptions(**settings) if options is None else options
    listener: OnEvent = progress or on_event or (lambda _: None)
    _check_early(model, out, options.task)
    builds = BuildCache() if cache else None
    if builds and not builds.limit:
        builds = None
    times, named = Times(builds.folder if builds else None), str(model) if isinstance(model, (str, os.PathLike)) else ""
    report = with_time_left(listener, times.of(named, options))

    def warn(text: str) -> None:
        report({"event": "warning", "text": text})

    with ends_in_order(), tempfile.TemporaryDirectory(prefix="trtcross-") as folder:
        spool = Path(folder)
        name, path = (None, str(model)) if isinstance(model, (str, os.PathLike)) else _save(model, spool)
        key = _early_key(Path(path), name, options) if builds else None
        if builds and key and fetch(builds, key, out, {}, warn):
            report({"event": "cached", "key": key})
            found = open_artifact(out)
            for text in build_warnings(found.manifest):
                warn(text)
            return _with_plan(found, options)
        if isinstance(model, (str, os.PathLike)):
            require_room(Needs.of(saved_weights(Path(model)), options), spool, out, warn)
        job = {
            "model": path,
            "name": name,
            "out": str(out),
            "spool": folder,
            "options": options.model_dump_json(),
            "cache": builds is not None,
            "cache_key": key,
        }
        with tempfile.TemporaryFile() as default_log:
            _run_child(job, report, log or default_log)
    artifact = open_artifact(out)
    if builds and not artifact.manifest.build.from_cache:
        keep(builds, artifact, warn)
        times.keep(named, options, artifact.manifest.build.seconds)
    return _with_plan(artifact, options)


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


def _save(program: Any, spool: Path) -> tuple[str, str]:
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


def _check_early(model: Any, out: Path, task: str | None) -> None:
    """What is wrong for certain is said at once, not after seconds of imports in the child."""
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


def _run_child(job: dict[str, Any], on_event: OnEvent, log: IO[bytes]) -> None:
    start = log.tell() if log.seekable() else None
    command = python_child("linux_side.driver.worker", str(os.getpid()))
    child, events = start_child(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    error: TrtcrossError | None = None
    told: dict[str, Any] = {}
    jobs = child.stdin
    if jobs is None:  # for the type checker: it is a pipe
        raise RuntimeError("the build process has no pipe")
    with child, events:
        try:
            with suppress(BrokenPipeError), jobs:  # it ended at once, and how is said below
                jobs.write(json.dumps(job).encode())
            for event in read_events(events):
                if event["event"] == "error":
                    error = error_from_json(event["error"])
                else:
                    told.update(event)
                    on_event(event)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            _remove_parts(Path(job["out"]), child.pid)
    if error is not None:
        raise error
    if child.returncode:
        raise _crashed(ProcessEnd.of(child.returncode), log, start, told)


def _remove_parts(out: Path, pid: int) -> None:
    """What a child that was killed left unfinished; another build's own part is not touched."""
    prefix = part_prefix(out, pid)
    for path in out.parent.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def _crashed(ended: ProcessEnd, log: IO[bytes], start: int | None, told: Mapping[str, Any]) -> BuildFailedError:
    """
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
