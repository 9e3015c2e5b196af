"""``warm``: a child process loads an artifact and calls it, so that its kernels are in the runtime cache.

The child may be killed at any time: the cache's files are written beside and moved into place.
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
    """Says that nobody waits any longer; a ``threading.Event`` is one."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class WarmEvent:
    """What happens, as far as it is known: how long a compilation takes TensorRT-RTX does not say.

    Attributes:
        kind: a call starts, goes on (about once a second), or has ended.
        sizes: of the dimensions that may vary, by name.
        cuda_graphs: whether the kernels are those of calls that are captured, which are others.
        seconds: since the call has started, loading the artifact for it included.
    """

    kind: Literal["start", "seconds", "end"]
    sizes: dict[str, int]
    cuda_graphs: bool
    seconds: float


@dataclass(frozen=True)
class WarmReport:
    """What came of it.

    Attributes:
        runtime: what ran it: ``torch`` or ``tensorrt``.
        calls: the end of each call.
        seconds: in all.
        folder: where the kernels are.
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
    """Compiles an artifact's kernels ahead, in a child process, into the cache that ``load`` and ``Session`` share.

    An installer or a program's first start may call it, so that no user waits at the first call.

    Args:
        artifact: its path.
        sizes: of the calls to come, such as ``[{"x.0": 8}, {"x.0": 16}]``; what one leaves out is as in the first
            profile. By default one call for each profile, at its ``opt``.
        runtime: what runs it; ``auto``: TensorRT alone where the artifact needs no PyTorch and it is installed.
        device, allow_unlisted_gpu, policy, runtime_cache, trust: as :func:`windows_side.load` takes them.
        on_event: hears of each call: that it starts, how many seconds it has taken, that it has ended. It is called in
            this thread.
        cancel: ends the child within a second once it is set; the cache is whole then, too.

    Raises:
        IncompatibleError: it cannot run on this machine, nothing is compiled for it, or the child crashed.
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
    """:func:`warm`, by options as data."""
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
    """What the child is to do, as JSON; whatever refuses the artifact does so here, before there is a process."""
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
    """The process that compiles. It writes what happens into a file: Windows passes no pipe to a Python child."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.cancelled = False
        self._said, self._errors = folder / "events", folder / "stderr"
        self._said.touch()
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = python_child("windows_side.warming.child", str(folder / "job.json"), str(self._said))
        with self._errors.open("wb") as errors:
            # It ends when its stdin does, as when this process is killed.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)

    def events(self, cancel: Cancel | None) -> Iterator[WarmEvent]:
        """What happens, until the child has ended or nobody waits any longer.

        Raises:
            TrtcrossError: the child refused the artifact.
            IncompatibleError: it crashed.
        """
        current: tuple[dict[str, Any], float, float] | None = None  # a call, when it began and was last heard of
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
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _crashed(self) -> IncompatibleError:
        ended = ProcessEnd.of(self._process.returncode)
        text = self._errors.read_bytes().decode("utf-8", "replace").strip()[-500:]
        return IncompatibleError(
            f"the process that compiles kernels {ended}: {text or 'it said nothing'}",
            where="warm",
            remedy="`trtcross verify` says more",
        )


def _lines(stream: Any) -> Iterator[dict[str, Any]]:
    """The lines that are whole; the rest of one is read later."""
    while True:
        position = stream.tell()
        line = stream.readline()
        if not line.endswith("\n"):
            stream.seek(position)
            return
        yield json.loads(line)


def _runtime(artifact: Artifact, wanted: str) -> Runtime:
    """TensorRT alone where it can and is there: both share the kernels, and PyTorch takes seconds to import."""
    alone = wanted == AUTO and not operators_for_torch(artifact.graph())
    if alone and all(map(version_of, (artifact.manifest.producer.tensorrt.name, "cuda-bindings"))):
        return Runtime.TENSORRT
    return choose_runtime(artifact, wanted)


def _require_kernels(artifact: Artifact) -> None:
    """Checks that the engines' kernels are compiled on the machine that runs them.

    Raises:
        IncompatibleError: its engines hold their kernels already.
    """
    if artifact.manifest.target.backend is not Backend.TENSORRT_RTX:
        raise IncompatibleError(
            "TensorRT's engines hold their kernels: nothing is compiled at the first call",
            where=str(artifact.path),
            remedy="there is nothing to do",
        )


def _can_be_captured(artifact: Artifact, calls: Sequence[SizedCall]) -> bool:
    """Whether calls that are captured need kernels of their own: those for sizes that vary, compiled for one size."""
    manifest = artifact.manifest
    return any(call.sizes for call in calls) and not any(e.requires_output_allocator for e in manifest.engines)


def _folder(options: RunOptions) -> Path:
    """The folder that keeps compiled kernels.

    Raises:
        UsageError: no kernels are to be kept.
    """
    folder = chosen_folder(options.runtime_cache)
    if folder is None:
        raise UsageError(
            "kernels are compiled to be kept, and none are without a runtime cache",
            where="runtime_cache",
            remedy="leave it out, or name a folder",
        )
    return folder
