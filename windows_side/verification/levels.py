"""Verifies an artifact level by level: signature (where a policy is given), integrity, structure, load, numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from time import monotonic
from typing import Any

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.structure import LEVELS, check_integrity, check_structure
from toolchain.errors import IncompatibleError, TrtcrossError, WrongNumbersError, unexpected
from toolchain.host.machine import machine_facts
from toolchain.host.requirements import Requirement
from toolchain.manifest.models import Manifest, golden_warnings
from toolchain.signing.artifact import require_signature
from toolchain.targets import Backend
from windows_side.kernel_choice import KINDS, KernelChoice
from windows_side.options import RunOptions
from windows_side.preflight.requirements import Runtime, check, require
from windows_side.preflight.runtimes import choose_runtime
from windows_side.session.opening import open_session
from windows_side.verification.output_error import OutputError, doubts_of_added


@dataclass
class StepResult:
    """One level's outcome."""

    level: str
    passed: bool
    seconds: float
    error: TrtcrossError | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "error": self.error.to_json() if self.error else None}


@dataclass
class ArtifactSummary:
    """What is kept of an artifact when its file is closed. The derived manifest of a foreign file has no digest."""

    manifest: Manifest
    manifest_sha256: str | None
    size: int


class Verification:
    """A verification of one artifact, and its results so far. Opening the file is part of the first level.

    Attributes:
        path: the artifact's path.
        level: the last level to check.
        started: when the verification was made, in UTC.
        levels: all levels to check, in order.
        results: the results of the levels that ended.
        running: the level under way. After the run it is None, unless the run was broken off.
        facts: the artifact's facts, once it is open.
        machine: facts about this machine. Like ``requirements`` it is filled where it was asked for, and wherever the
            last level is ``load`` or ``numbers``.
        requirements: the artifact's requirements on this machine.
        outputs: how far each output is from golden.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        level: str,
        loading: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
        *,
        about_machine: bool = False,
    ) -> None:
        """Prepares a verification; nothing is read yet.

        Args:
            level: the last level to check; it includes those before it.
            loading: with a policy, the signature is checked before anything else.
            about_machine: collect facts about the machine whatever the level.
        """
        self.path = os.fspath(path)
        self.level = level
        self.started = datetime.now(timezone.utc)
        self.levels = (*(("signature",) if loading.policy else ()), *LEVELS[: LEVELS.index(level) + 1])
        self.results: list[StepResult] = []
        self.running: str | None = None
        self.facts: ArtifactSummary | None = None
        self.machine: dict[str, str] = {}
        self.requirements: list[Requirement] = []
        self.outputs: list[OutputError] = []
        self._loading = loading
        self._about_machine = about_machine or level in ("load", "numbers")
        self._model: Any = None
        self._runtime = Runtime.TORCH

    @property
    def error(self) -> TrtcrossError | None:
        """Why the last level failed, or None."""
        return self.results[-1].error if self.results else None

    def run(self, before: Callable[[str], None] = lambda level: None) -> Iterator[StepResult]:
        """Checks the levels in order, and stops at the first that fails. Yields each level's result as it ends.

        Args:
            before: called with the name of each level that is about to begin.
        """
        if self._about_machine:
            self.machine = machine_facts()
        artifact: Artifact | None = None
        try:
            for level in self.levels:
                self.running = level
                before(level)
                start, details = monotonic(), dict[str, Any]()
                try:
                    if artifact is None:
                        artifact = self._open()
                    self._step(level, artifact, details)
                    error = None
                except TrtcrossError as problem:
                    error = problem
                except Exception as problem:
                    self._end(level, start, unexpected(problem), details)
                    raise
                yield self._end(level, start, error, details)
                if error:
                    return
        finally:
            self._close()
            if artifact is not None:
                artifact.close()

    def _end(self, level: str, start: float, error: TrtcrossError | None, details: dict[str, Any]) -> StepResult:
        self.running = None
        self.results.append(StepResult(level, error is None, monotonic() - start, error, details))
        return self.results[-1]

    def _open(self) -> Artifact:
        artifact = open_artifact(self.path)
        digest = None if artifact.foreign else artifact.manifest_sha256
        self.facts = ArtifactSummary(artifact.manifest, digest, artifact.container.size)
        if self._about_machine:
            try:
                self._runtime = choose_runtime(artifact, self._loading.runtime)
                self.requirements = check(artifact, self._runtime)
            except TrtcrossError:
                self.requirements = []  # the engines' headers are damaged, which a level will report
        return artifact

    def _step(self, level: str, artifact: Artifact, details: dict[str, Any]) -> None:
        """Checks one level, and puts what it finds into ``details`` even where it fails."""
        if level == "signature" and self._loading.policy:
            details["signer"] = str(require_signature(artifact, self._loading.policy))
        elif level == "integrity":
            details.update(check_integrity(artifact))
        elif level == "structure":
            details.update(check_structure(artifact, self._loading.trust))
        elif level == "load":
            # Checked before torch is imported, which may be what is missing. Without requirements, the engines' headers
            # are damaged, and `require` reports that.
            doubts = require(
                artifact,
                allow_unlisted_gpu=self._loading.allow_unlisted_gpu,
                requirements=self.requirements or None,
                runtime=self._runtime,
            )
            details["runtime"] = self._runtime.value
            self._model = self._loaded(artifact, doubts, self._kernels(artifact)[0])
        else:
            self.outputs = self._golden_errors(artifact)
            details["outputs"] = [output.to_json() for output in self.outputs]
            if added := doubts_of_added(self.outputs):
                details["warnings"] = added
            require_within(self.outputs, artifact)

    def _kernels(self, artifact: Artifact) -> tuple[KernelChoice, ...]:
        """Returns the kernels with which numbers are compared: where sizes vary, those for any size and for one.

        Calls run the first until the second are compiled, and TensorRT may compute only one kind wrongly.
        """
        asked, manifest = self._loading.kernels, artifact.manifest
        has_both = manifest.target.backend is Backend.TENSORRT_RTX and self._runtime is not Runtime.ONNXRUNTIME
        return ("none", "eager") if asked == "lazy" and has_both and _sizes_vary(manifest) else (asked,)

    def _golden_errors(self, artifact: Artifact) -> list[OutputError]:
        kinds, errors = self._kernels(artifact), list[OutputError]()
        for number, kernels in enumerate(kinds):
            if number:
                self._close()
                self._model = self._loaded(artifact, [], kernels)
            found = golden_errors(artifact, self._model, self._runtime)
            errors += [replace(error, kernels=kernels) for error in found] if len(kinds) > 1 else found
        return errors

    def _close(self) -> None:
        if self._runtime is not Runtime.TORCH and self._model is not None:
            self._model.close()
        self._model = None

    def _loaded(self, artifact: Artifact, doubts: list[Requirement], kernels: KernelChoice) -> Any:
        loading = self._loading.model_copy(update={"kernels": kernels})
        if self._runtime is Runtime.TENSORRT:
            return open_session(artifact, loading)
        if self._runtime is Runtime.ONNXRUNTIME:
            from windows_side.onnxruntime.session import OnnxSession

            return OnnxSession(artifact, loading)
        from windows_side.loader.loading import load_admitted

        return load_admitted(artifact, doubts, loading)


def _sizes_vary(manifest: Manifest) -> bool:
    return any(-1 in binding.shape for engine in manifest.engines for binding in engine.inputs)


def _golden_of(artifact: Artifact, model: Any, runtime: Runtime) -> list[OutputError]:
    if runtime is not Runtime.TORCH:
        from windows_side.verification.session_golden import compare_session

        return compare_session(artifact, model)
    from windows_side.verification.golden import compare_golden

    return compare_golden(artifact, model)


def golden_errors(artifact: Artifact, model: Any, runtime: Runtime = Runtime.TORCH) -> list[OutputError]:
    """Runs the golden inputs, and compares the outputs with golden.

    Args:
        model: the loaded model or session.
        runtime: the runtime of the model.

    Raises:
        IncompatibleError: the artifact holds no golden I/O.
    """
    if artifact.manifest.golden is None:
        why = golden_warnings(artifact.manifest)
        raise IncompatibleError(
            why[0] if why else "the artifact holds no golden I/O to compare with",
            where=str(artifact.path),
            remedy="verify with --level load" if why else "build it with --golden 1, or verify with --level load",
        )
    return _golden_of(artifact, model, runtime)


def require_within(errors: Sequence[OutputError], artifact: Artifact) -> None:
    """Refuses outputs that are too far from golden.

    Raises:
        WrongNumbersError: naming the worst of them.
    """
    wrong = [error for error in errors if not error.within]
    if wrong:
        worst = max(wrong, key=lambda error: error.relative_l2)
        right = {error.kernels for error in errors if error.kernels} - {error.kernels for error in wrong}
        remedy = "build with a higher --precision or --no-tf32, and compare"
        if kernels := next(iter(right), None):
            remedy = f"{KINDS[kernels]} alone are right here: load(kernels={kernels!r}), or --kernels {kernels}"
        raise WrongNumbersError(
            f"{len(wrong)} of {len(errors)} outputs are outside their tolerance; the worst is {worst.title} of sample "
            f"{worst.sample}: relative error {worst.relative_l2:.2e} (allowed {worst.tolerance.relative_l2:.0e}), "
            f"maximum {worst.max_relative:.2e} (allowed {worst.tolerance.max_relative:.0e}), "
            f"worst element at {worst.worst_index}: {worst.worst_got:.6g} instead of {worst.worst_want:.6g}",
            where=str(artifact.path),
            remedy=remedy,
        )


def broken_off(level: str) -> TrtcrossError:
    """Returns the error that reports a level as broken off, should this process end now."""
    return TrtcrossError(
        f"the process ended during the level {level!r}",
        remedy="run `trtcross verify` again by hand; a crash in it is the driver's or TensorRT's",
    )
