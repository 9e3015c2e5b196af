"""Selects the best artifact of a folder for this machine, and states why each of the others is not.

As ``packaging.tags`` does for wheels, an ordered list of criteria is compared, and the first that differs decides.
Nothing is loaded or unpickled. Of each file the directory, the manifest and the headers of its engines are read. The
graph is read only of the best one, and where a runtime without PyTorch may run it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.structure import check_structure
from toolchain.errors import MalformedArtifactError, TrtcrossError, UsageError, unexpected
from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Coverage
from toolchain.targets import ComputeCapability
from windows_side.preflight.requirements import GPU_REQUIREMENT, Runtime, listed_capabilities, unmet
from windows_side.preflight.runtimes import AUTO, check_for, choose_runtime

SUFFIX = ".pt2"


class GpuMatch(IntEnum):
    """How well an engine's list of GPUs fits a GPU of this machine; a larger value fits better."""

    UNLISTED = 0
    UNTOLD = 1
    FAMILY = 2
    EXACT = 3

    @property
    def words(self) -> str:
        return {
            GpuMatch.UNLISTED: "built for other GPUs",
            GpuMatch.UNTOLD: "does not say for which GPUs",
            GpuMatch.FAMILY: "built for an earlier GPU of the same family",
            GpuMatch.EXACT: "built for this very GPU",
        }[self]


@dataclass(frozen=True)
class Candidate:
    """The facts about a sound artifact that decide between artifacts.

    Attributes:
        coverage: the share of operators that run in TensorRT, or None where it is not known.
        gpus: the number of kinds of GPUs that it is built for.
        runtime: the runtime that would run it.
        requirements: its requirements on this machine, without those that were waived.
    """

    path: Path
    model: str
    created: datetime
    coverage: float | None
    gpus: int
    gpu_match: GpuMatch
    runtime: Runtime
    requirements: tuple[Requirement, ...]

    @property
    def fit(self) -> State:
        """Whether it can run here: not met if a requirement is not met, else unknown if one is unknown, else met."""
        states = {item.state for item in self.requirements}
        return next((state for state in (State.NOT_MET, State.UNKNOWN) if state in states), State.MET)

    def meets(self, name: str) -> bool:
        return any(item.name == name and item.state is State.MET for item in self.requirements)


@dataclass(frozen=True)
class Refused:
    """A file that cannot be selected, and why."""

    path: Path
    error: TrtcrossError


@dataclass(frozen=True)
class Criterion:
    """A property that can decide between two artifacts; a larger rank is better."""

    name: str
    rank: Callable[[Candidate], Any]
    words: Callable[[Candidate], str]


_FITS = {State.NOT_MET: 0, State.UNKNOWN: 1, State.MET: 2}

# The most important criterion is first.
CRITERIA = (
    Criterion("requirements", lambda c: _FITS[c.fit], lambda c: c.fit.value),
    Criterion("platform", lambda c: c.meets("platform"), lambda c: "this one" if c.meets("platform") else "another"),
    Criterion("runtime", lambda c: c.meets("runtime"), lambda c: "this one" if c.meets("runtime") else "another"),
    Criterion("gpu", lambda c: c.gpu_match, lambda c: c.gpu_match.words),
    Criterion("coverage", lambda c: -1.0 if c.coverage is None else c.coverage, lambda c: _percent(c.coverage)),
    Criterion("created", lambda c: c.created, lambda c: f"{c.created:%Y-%m-%d %H:%M:%S} UTC"),
    Criterion("specificity", lambda c: -c.gpus, lambda c: f"built for {c.gpus} kinds of GPUs"),
)


@dataclass(frozen=True)
class Selection:
    """A folder's artifacts.

    Attributes:
        candidates: the artifacts that were compared, the best first.
        refused: the files that cannot be selected, by name.
    """

    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]

    @property
    def best(self) -> Candidate | None:
        """The first candidate if it fits this machine, else None."""
        return self.candidates[0] if self.candidates and self.candidates[0].fit is State.MET else None


def select(
    folder: str | os.PathLike[str], *, model: str | None = None, allow_unlisted_gpu: bool = False, runtime: str = AUTO
) -> Selection:
    """Compares every ``.pt2`` file of a folder; folders below it are ignored.

    Args:
        model: the only model whose artifacts may be selected; None means any.
        allow_unlisted_gpu: waive the requirement on the GPU's compute capability.
        runtime: the runtime's name or ``auto``, as :func:`.runtimes.choose_runtime` takes it.

    Raises:
        UsageError: there is no such folder, or it cannot be read.
    """
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for path in _files(Path(folder)):
        try:
            candidate = _candidate(path, allow_unlisted_gpu, runtime)
            _require_model(candidate, model)
            candidates.append(candidate)
        except TrtcrossError as error:
            refused.append(Refused(path, error))
        except Exception as error:  # noqa: BLE001 - a bug of ours, which must not hide the other files
            refused.append(Refused(path, unexpected(error)))
    selection = Selection(tuple(ordered(candidates)), tuple(refused))
    while selection.best and (error_of_best := _structure_error(selection.best.path)):
        selection = _without_best(selection, error_of_best)
    return selection


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Returns the candidates with the best first; equal ones are in the order of their paths."""
    by_path = sorted(candidates, key=lambda candidate: candidate.path)
    return sorted(by_path, key=lambda candidate: [criterion.rank(candidate) for criterion in CRITERIA], reverse=True)


def reasons(candidate: Candidate, best: Candidate | None) -> list[str]:
    """Returns why a candidate is not the best: the requirements that it lacks, or the first criterion that differs."""
    if lacking := unmet(candidate.requirements):
        # Unknown requirements often follow from one that is not met: without a GPU, its memory is unknown.
        lacking = [item for item in lacking if item.state is State.NOT_MET] or lacking
        return [f"{item.name} {item.state.value}: needs {item.needed}; here: {item.found}" for item in lacking]
    if best is None or candidate == best:
        return []
    for criterion in CRITERIA:
        if criterion.rank(candidate) != criterion.rank(best):
            return [f"{criterion.name}: {criterion.words(candidate)}; the best: {criterion.words(best)}"]
    return ["equal in every respect; its name comes later"]


def gpu_match(listed: Sequence[ComputeCapability] | None, here: Iterable[ComputeCapability]) -> GpuMatch:
    """Returns how well a list of GPUs fits the one of this machine that it fits best.

    Args:
        listed: None means that the list is not known.
        here: the compute capabilities of this machine's GPUs.
    """
    if listed is None:
        return GpuMatch.UNTOLD
    return max((_match(listed, gpu) for gpu in here), default=GpuMatch.UNLISTED)


def _match(listed: Sequence[ComputeCapability], gpu: ComputeCapability) -> GpuMatch:
    if gpu in listed:
        return GpuMatch.EXACT
    family = any(other.major == gpu.major and other.minor < gpu.minor for other in listed)
    return GpuMatch.FAMILY if family else GpuMatch.UNLISTED


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.lower().endswith(SUFFIX))
    except OSError as error:
        raise UsageError(
            f"the folder cannot be read: {error.strerror or error}",
            where=str(folder),
            remedy="name a folder with artifacts in it",
        ) from error


def _structure_error(path: Path) -> TrtcrossError | None:
    """Returns why ``load`` would refuse the artifact's graph, or None. Engines are not read."""
    try:
        with open_artifact(path) as artifact:
            check_structure(artifact)
    except TrtcrossError as error:
        return error
    return None


def _without_best(selection: Selection, error: TrtcrossError) -> Selection:
    best, *others = selection.candidates
    refused = sorted([*selection.refused, Refused(best.path, error)], key=lambda item: item.path)
    return Selection(tuple(others), tuple(refused))


def _candidate(path: Path, allow_unlisted_gpu: bool, runtime: str) -> Candidate:
    with Artifact(path) as artifact:
        if artifact.foreign:  # checked first: deriving a foreign file's manifest reads every byte
            raise _no_manifest(path)
        chosen = choose_runtime(artifact, runtime)
        requirements = check_for(artifact, chosen)
        if allow_unlisted_gpu:
            requirements = [item for item in requirements if item.name != GPU_REQUIREMENT]
        return _facts(artifact, chosen, requirements)


def _facts(artifact: Artifact, runtime: Runtime, requirements: list[Requirement]) -> Candidate:
    manifest, listed = artifact.manifest, listed_capabilities(artifact)
    return Candidate(
        path=artifact.path,
        model=manifest.model.name,
        created=manifest.created,
        coverage=_share(manifest.coverage),
        gpus=len(listed or ()),
        gpu_match=gpu_match(listed, [gpu.capability for gpu in probe_gpus().gpus]),
        runtime=runtime,
        requirements=tuple(requirements),
    )


def _no_manifest(path: Path) -> MalformedArtifactError:
    return MalformedArtifactError(
        "it has no trtcross manifest: it is a plain program, or was saved by Torch-TensorRT itself",
        where=str(path),
        remedy=f"make an artifact of it: trtcross build, or trtcross convert {path.name} -o OUT",
    )


def _require_model(candidate: Candidate, model: str | None) -> None:
    if model is not None and candidate.model != model:
        raise UsageError(f"it holds the model {candidate.model[:200]!r}", remedy=f"asked for was --model {model}")


def _share(coverage: Coverage) -> float | None:
    if coverage.operators is None or coverage.in_engines is None:
        return None
    return coverage.in_engines / coverage.operators if coverage.operators else 1.0


def _percent(coverage: float | None) -> str:
    return "not known" if coverage is None else f"{coverage:.1%} of the operators in TensorRT"
