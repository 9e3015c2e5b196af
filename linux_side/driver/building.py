"""``build``: a model in, an artifact out, by way of a child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linux_side.cache.key import file_key
from linux_side.cache.lookup import fetch, keep
from linux_side.cache.store import BuildCache
from linux_side.options import BACKENDS, BuildOptions, DynamicDimension, Precision
from toolchain.artifact import Artifact, open_artifact
from toolchain.errors import BuildFailedError, TrtcrossError, UsageError, error_from_json
from toolchain.io.atomic import part_prefix
from toolchain.manifest.models import golden_warnings
from toolchain.targets import Platform

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OnEvent = Callable[[dict[str, Any]], None]


def build(
    model: ExportedProgram | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: str = Platform.WINDOWS_X86_64.value,
    backend: str = "auto",
    gpus: Sequence[str] = (),
    precision: Precision | None = None,
    tf32: bool = True,
    dynamic: Sequence[str] = (),
    golden: int = 1,
    min_block_size: int = 1,
    torch_executed_ops: Sequence[str] = (),
    require_full_coverage: bool = False,
    allow_no_engine: bool = False,
    workspace: int = 0,
    cache: bool = True,
    on_event: OnEvent | None = None,
    log: IO[bytes] | None = None,
) -> Artifact:
    """Compiles a model into an artifact. The caller's own torch is never touched.

    Args:
        model: an exported program, the path of one, or ``module:factory`` (see ``docs/tutorial.md``).
        out: where the ``.pt2`` file goes; what is there is replaced when the new file is complete.
        target: ``windows-x86_64`` or ``linux-x86_64``.
        backend: ``auto``, ``tensorrt-rtx`` or ``tensorrt``.
        gpus: compute capabilities such as ``sm_89``; none leaves the choice to TensorRT-RTX.
        precision: ``fp32``, ``fp16`` or ``bf16``; None leaves the model as it is.
        tf32: whether fp32 products may round their factors to TF32.
        dynamic: ``NAME.DIM=MIN:OPT:MAX`` each.
        golden: how many samples of golden I/O to keep: the example, the least sizes, the greatest, and between.
        allow_no_engine: make a plain program of a model of which TensorRT can take nothing, instead of failing.
        workspace: bytes of GPU memory that TensorRT may use for scratch; 0 leaves it to TensorRT.
        cache: whether to look in the build cache first, and to keep the artifact there (``docs/cache.md``).
        on_event: sees each event: ``start`` and ``end`` of phases, ``cached``, and ``warning`` with a ``text``.
        log: what Torch-TensorRT and TensorRT print goes here.

    Returns:
        The artifact, open.

    Raises:
        UsageError, BuildFailedError, IncompatibleError, MissingComponentError: as the case may be.
    """
    out = Path(out)
    options = BuildOptions(
        target=Platform.parse(target),
        backend=backend,
        gpus=list(gpus),
        precision=precision,
        tf32=tf32,
        dynamic=[DynamicDimension.parse(text) for text in dynamic],
        golden=golden,
        min_block_size=min_block_size,
        torch_executed_ops=list(torch_executed_ops),
        require_full_coverage=require_full_coverage,
        allow_no_engine=allow_no_engine,
        workspace=workspace,
    )
    _check_early(options, model, out)
    report: OnEvent = on_event or (lambda _: None)
    builds = BuildCache() if cache else None
    if builds and not builds.limit:
        builds = None

    def warn(text: str) -> None:
        report({"event": "warning", "text": text})

    with tempfile.TemporaryDirectory(prefix="trtcross-") as folder:
        spool = Path(folder)
        name, path = (None, str(model)) if isinstance(model, (str, os.PathLike)) else _save(model, spool)
        key = _early_key(Path(path), name, options) if builds else None
        if builds and key and fetch(builds, key, out, {}, warn):
            report({"event": "cached", "key": key})
            found = open_artifact(out)
            for text in golden_warnings(found.manifest):
                warn(text)
            return found
        job = {
            "model": path,
            "name": name,
            "out": str(out),
            "spool": folder,
            "options": options.model_dump(mode="json"),
            "cache": builds is not None,
            "cache_key": key,
        }
        with tempfile.TemporaryFile() as default_log:
            _run_child(job, report, log or default_log)
    artifact = open_artifact(out)
    if builds and not artifact.manifest.build.from_cache:
        keep(builds, artifact, warn)
    return artifact


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
    path = spool / "input.pt2"
    torch.export.save(program, path)
    return type(program.graph_module).__name__, str(path)


def _check_early(options: BuildOptions, model: Any, out: Path) -> None:
    """What is wrong for certain is said at once, not after seconds of imports in the child."""
    _ = options.capabilities
    if options.backend not in BACKENDS:
        raise UsageError(
            f"there is no backend {options.backend!r}", where="--backend", remedy="use one of: " + ", ".join(BACKENDS)
        )
    if isinstance(model, (str, os.PathLike)) and ":" not in str(model) and not Path(model).is_file():
        raise UsageError(
            f"there is no model {str(model)!r}",
            where="MODEL",
            remedy="give a .pt2 file that torch.export.save wrote, or module:factory",
        )
    if out.suffix != ".pt2":
        raise UsageError(
            f"the artifact {out.name!r} must end in .pt2", where="-o", remedy="torch.export.load asks for it"
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(
            "the output is a folder, or its folder does not exist", where=f"-o {out}", remedy="name a file to write"
        )


def _run_child(job: dict[str, Any], on_event: OnEvent, log: IO[bytes]) -> None:
    start = log.tell() if log.seekable() else None
    command = [sys.executable, "-m", "linux_side.driver.worker", str(os.getpid())]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    error: TrtcrossError | None = None
    events, jobs = child.stdout, child.stdin
    if events is None or jobs is None:  # for the type checker: both are pipes
        raise RuntimeError("the build process has no pipes")
    with child:
        try:
            jobs.write(json.dumps(job))
            jobs.close()
            for line in events:
                event = json.loads(line)
                if event["event"] == "error":
                    error = error_from_json(event["error"])
                else:
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
        raise _crashed(child.returncode, log, start)


def _remove_parts(out: Path, pid: int) -> None:
    """What a child that was killed left unfinished; another build's own part is not touched."""
    prefix = part_prefix(out, pid)
    for path in out.parent.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def _crashed(code: int, log: IO[bytes], start: int | None) -> BuildFailedError:
    what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    tail = ""
    if start is not None and log.readable():
        log.seek(start)
        tail = "\n".join(log.read().decode(errors="replace").splitlines()[-15:])
    return BuildFailedError(
        f"the build process {what}" + (f"; it said last:\n{tail}" if tail else ""),
        where="linux_side.driver.worker",
        remedy="SIGKILL usually means too little memory: build on a bigger machine"
        if code == -signal.SIGKILL
        else "please report it, with this text",
    )
