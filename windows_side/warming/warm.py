"""``warm``: a child process loads an artifact and calls it, so that its kernels are in the kernel cache.

The child may be killed at any time, because the cache's files are written beside and moved into place.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from toolchain.artifact import Artifact, open_artifact
from toolchain.errors import IncompatibleError, ProcessEnd, UsageError, error_from_json
from toolchain.graph.torch_free import operators_for_torch
from toolchain.host.installed import version_of
from toolchain.io.python_child import python_child
from toolchain.signing.policy import Policy, read_policy
from toolchain.targets import DEVICE, Backend
from windows_side.kernel_files import chosen_folder, remove_unfinished
from windows_side.options import RunOptions
from windows_side.preflight.admission import admit
from windows_side.preflight.requirements import Runtime
from windows_side.preflight.runtimes import AUTO, choose_runtime
from windows_side.warming.sizes import SizedCall, Sizes, calls_for

_POLL = 0.05
_TICK = 1.0


class Cancel(Protocol):
    """Tells whether the caller no longer waits; a ``threading.Event`` is one."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class WarmEvent:
    """An event of warming. TensorRT-RTX does not report how far a compilation is, so only the seconds are known.

    Attributes:
        kind: a call starts, is running (about once a second), or has ended.
        sizes: the sizes of the dimensions that may vary, by name.
        cuda_graphs: whether the kernels are for calls in CUDA graphs, which are different kernels.
        seconds: the time since the call started, including loading the artifact for it.
    """

    kind: Literal["start", "seconds", "end"]
    sizes: dict[str, int]
    cuda_graphs: bool
    seconds: float


@dataclass(frozen=True)
class WarmReport:
    """The result of warming.

    Attributes:
        runtime: the runtime that made the calls: ``torch`` or ``tensorrt``.
        calls: the event of each call's end.
        seconds: the whole time.
        folder: the folder with the kernels.
        cancelled: whether it was cancelled before the end; kernels of calls that ended are kept.
    """

    runtime: str
    calls: list[WarmEvent]
    seconds: float
    folder: str
    cancelled: bool


def warm(
    artifact: str | os.PathLike[str],
    device: str | int = DEVICE,
    *,
    sizes: Sequence[Sizes] | None = None,
    runtime: Literal["auto", "torch", "tensorrt"] = "auto",
    allow_unlisted_gpu: bool = False,
    policy: str | os.PathLike[str] | Policy | None = None,
    runtime_cache: bool | str | os.PathLike[str] = True,
    trust: str | None = None,
    on_event: Callable[[WarmEvent], object] = lambda _: None,
    cancel: Cancel | None = None,
) -> WarmReport:
    """Compiles an artifact's kernels in a child process, into the cache that ``load`` and ``Session`` share.

    An installer or a program's first start may call it, so that no user waits at the first call.

    Args:
        artifact: the artifact's path.
        sizes: the sizes of later calls, such as ``[{"x.0": 8}, {"x.0": 16}]``; a size that is left out is that of the
            first profile. By default there is one call for each profile, at its ``opt``.
        runtime: the runtime that makes the calls. ``auto`` means TensorRT alone where it is installed and the artifact
            needs no PyTorch, otherwise PyTorch.
        device, allow_unlisted_gpu, policy, runtime_cache, trust: as :func:`windows_side.load` takes them.
        on_event: called in this thread with each event: a call starts, is running, or has ended.
        cancel: once it is set, the child is ended within a second; the cache is whole then too.

    Raises:
        IncompatibleError: the artifact cannot run on this machine, it has no kernels to compile, or the child crashed.
        MalformedArtifactError, MissingComponentError, UntrustedError: as ``load`` raises them.
        UsageError: the model does not take such sizes, or kernels cannot be kept.
    """
    options = RunOptions(
        device=device,  # type: ignore[arg-type]  # an index is read too
        allow_unlisted_gpu=allow_unlisted_gpu,
        policy=None if policy is None else read_policy(policy),
        runtime_cache=runtime_cache,
        trust=trust,
        runtime=runtime,
    )
    return warm_by(artifact, options, sizes, on_event, cancel)


def warm_by(
    path: str | os.PathLike[str],
    options: RunOptions,
    sizes: Sequence[Sizes] | None = None,
    on_event: Callable[[WarmEvent], object] = lambda _: None,
    cancel: Cancel | None = None,
) -> WarmReport:
    """Does what :func:`warm` does, with options as data."""
    with open_artifact(path) as artifact:
        job = job_for(artifact, options, sizes)
    start = time.monotonic()
    ended = []
    with tempfile.TemporaryDirectory() as folder:
        child = _Child(job, Path(folder))
        try:
            for event in child.events(cancel):
                on_event(event)
                if event.kind == "end":
                    ended.append(event)
        finally:
            child.end()
    if child.cancelled:
        remove_unfinished(Path(job["folder"]))
    return WarmReport(job["runtime"], ended, time.monotonic() - start, job["folder"], child.cancelled)


def job_for(artifact: Artifact, options: RunOptions, sizes: Sequence[Sizes] | None) -> dict[str, Any]:
    """Returns the child's job as JSON. The artifact is checked here, so that it is refused before a process starts.

    Raises:
        Those of :func:`warm`.
    """
    calls = calls_for(artifact.manifest, sizes)
    _require_kernels(artifact)
    runtime = _runtime(artifact, options.runtime)
    admit(artifact, options, runtime)
    return {
        "artifact": str(artifact.path.resolve()),
        "runtime": runtime.value,
        "options": options.model_dump(mode="json", include={"device", "allow_unlisted_gpu", "trust"}),
        "folder": str(_folder(options)),
        "calls": [asdict(call) for call in calls],
        "cuda_graphs": [False, True] if _can_be_captured(artifact, calls) else [False],
    }


class _Child:
    """The process that compiles. It writes its events to a file, because Windows passes no pipe to a Python child."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.cancelled = False
        self._said, self._errors = folder / "events", folder / "stderr"
        self._said.touch()
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = python_child("windows_side.warming.child", str(folder / "job.json"), str(self._said))
        with self._errors.open("wb") as errors:
            # The child ends when its stdin does, which also happens when this process is killed.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)

    def events(self, cancel: Cancel | None) -> Iterator[WarmEvent]:
        """Yields the child's events until it has ended or is cancelled.

        Raises:
            TrtcrossError: the child refused the artifact.
            IncompatibleError: the child crashed.
        """
        current: tuple[dict[str, Any], float, float] | None = None  # the running call, its start and its last event
        done = False
        with self._said.open(encoding="utf-8") as said:
            while True:
                over = self._process.poll() is not None
                for document in _lines(said):
                    if "error" in document:
                        raise error_from_json(document["error"])
                    done = done or document["kind"] == "done"
                    if document["kind"] != "done":
                        now = time.monotonic()
                        current = (document, now, now) if document["kind"] == "start" else None
                        yield WarmEvent(**document)
                if over:
                    break
                if cancel is not None and cancel.is_set():
                    self.cancelled = True
                    return
                if current and time.monotonic() - current[2] >= _TICK:
                    document, began, _ = current
                    current = (document, began, time.monotonic())
                    yield WarmEvent(**{**document, "kind": "seconds", "seconds": time.monotonic() - began})
                time.sleep(_POLL)
        if not done:
            raise self._crashed()

    def end(self) -> None:
        """Kills the child, and waits until it has ended."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _crashed(self) -> IncompatibleError:
        ended = ProcessEnd.of(self._process.returncode)
        text = self._errors.read_bytes().decode("utf-8", "replace").strip()[-500:]
        return IncompatibleError(
            f"the process that compiles kernels {ended}: {text or 'it printed nothing'}",
            where="warm",
            remedy="`trtcross verify` reports the reason",
        )


def _lines(stream: Any) -> Iterator[dict[str, Any]]:
    """Yields the complete lines; the start of an incomplete line is read again later."""
    while True:
        position = stream.tell()
        line = stream.readline()
        if not line.endswith("\n"):
            stream.seek(position)
            return
        yield json.loads(line)


def _runtime(artifact: Artifact, wanted: str) -> Runtime:
    """Chooses TensorRT alone where it can run the artifact: the kernels are the same, and PyTorch imports slowly."""
    alone = wanted == AUTO and not operators_for_torch(artifact.graph())
    if alone and all(map(version_of, (artifact.manifest.producer.tensorrt.name, "cuda-bindings"))):
        return Runtime.TENSORRT
    return choose_runtime(artifact, wanted)


def _require_kernels(artifact: Artifact) -> None:
    """Checks that the engines' kernels are compiled on the machine that runs them.

    Raises:
        IncompatibleError: the engines hold their kernels already.
    """
    if artifact.manifest.target.backend is not Backend.TENSORRT_RTX:
        raise IncompatibleError(
            "TensorRT's engines hold their kernels: nothing is compiled at the first call",
            where=str(artifact.path),
            remedy="there is nothing to do",
        )


def _can_be_captured(artifact: Artifact, calls: Sequence[SizedCall]) -> bool:
    """Whether captured calls need kernels of their own, as they do where sizes vary, and can be captured at all."""
    manifest = artifact.manifest
    return any(call.sizes for call in calls) and not any(e.requires_output_allocator for e in manifest.engines)


def _folder(options: RunOptions) -> Path:
    """Returns the folder that keeps compiled kernels.

    Raises:
        UsageError: the options say to keep no kernels.
    """
    folder = chosen_folder(options.runtime_cache)
    if folder is None:
        raise UsageError(
            "kernels are compiled to be kept, and none are without a runtime cache",
            where="runtime_cache",
            remedy="leave it out, or name a folder",
        )
    return folder
