"""Verifying an artifact, level by level: integrity, structure, load, numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import IncompatibleError, MalformedArtifactError, TrtcrossError, WrongNumbersError
from toolchain.golden_header import check_golden_header
from toolchain.signing import require_signature
from toolchain.signing_policy import Policy
from toolchain.trust import require_safe_to_load
from windows_side.preflight import require

LEVELS = ("integrity", "structure", "load", "numbers")


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


def verify(
    artifact: Artifact,
    level: str,
    *,
    device: str = "cuda:0",
    allow_unlisted_gpu: bool = False,
    policy: Policy | None = None,
) -> Iterator[StepResult]:
    """Runs the levels up to ``level``, in order, and stops at the first that fails.

    Args:
        policy: who may have signed it; the signature is then checked before anything else.
    """
    model: Any = None

    def load_step() -> dict[str, Any]:
        nonlocal model
        require(artifact, allow_unlisted_gpu=allow_unlisted_gpu)  # before torch, which may be what is missing
        from windows_side.loading import load

        model = load(artifact, device, allow_unlisted_gpu=allow_unlisted_gpu)
        return {}

    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "signature": lambda: {"signer": str(require_signature(artifact, policy))} if policy else {},
        "integrity": lambda: check_integrity(artifact),
        "structure": lambda: check_structure(artifact),
        "load": load_step,
        "numbers": lambda: check_numbers(artifact, model),
    }
    for name in (*(("signature",) if policy else ()), *LEVELS[: LEVELS.index(level) + 1]):
        start = monotonic()
        try:
            details = steps[name]()
        except TrtcrossError as error:
            yield StepResult(name, False, monotonic() - start, error)
            return
        yield StepResult(name, True, monotonic() - start, details=details)


def check_integrity(artifact: Artifact) -> dict[str, Any]:
    """Every byte that a digest covers."""
    artifact.check_integrity()
    return {"entries": len(artifact.container.entries), "engines": len(artifact.engines)}


def check_structure(artifact: Artifact) -> dict[str, Any]:
    """Graph, engine info, plan headers and manifest agree, and torch would run no code from the file.

    Raises:
        MalformedArtifactError: they contradict each other.
        UntrustedError: torch would unpickle or evaluate a part of it.
    """
    require_safe_to_load(artifact)
    check_golden_header(artifact)
    target = artifact.manifest.target
    listed = target.compute_capabilities
    for engine in artifact.engines:
        where = f"{artifact.path}, engine {engine.name}"
        info, header, entry = engine.info, engine.plan_header(), engine.entry
        claims = [
            ("name", info.name, entry.name),
            ("ABI version", info.abi_version, target.abi_version),
            ("target platform", info.target_platform, target.platform.runtime_name),
            ("input bindings", list(info.input_names), [binding.name for binding in entry.inputs]),
            ("output bindings", list(info.output_names), [binding.name for binding in entry.outputs]),
            ("TensorRT", header.backend, target.backend),
            ("release", header.release or target.runtime, target.runtime),
            ("plan's release", header.release, entry.plan.release),
            ("plan's GPUs", header.capability_mask, entry.plan.capability_mask),
            ("plan's kind", header.backend.magic, entry.plan.magic),
            ("output allocator", info.requires_output_allocator, entry.requires_output_allocator),
            (
                "aliased I/O",
                [(alias.output, alias.input, alias.kind) for alias in info.aliased_io],
                [(alias.output, alias.input, alias.kind) for alias in entry.aliased_io],
            ),
            ("GPUs", [str(c) for c in header.capabilities] or listed, listed),
            ("plan's size", header.size or engine.size, engine.size),
        ]
        for what, found, claimed in claims:
            if found != claimed:
                raise MalformedArtifactError(
                    f"the {what} is {found!r}, the manifest says {claimed!r}",
                    where=where,
                    remedy="get the file again, or build it again",
                )
    return {"placeholder_nodes": len(artifact.placeholders)}


def check_numbers(artifact: Artifact, model: Any) -> dict[str, Any]:
    """Runs the golden inputs and compares with the golden outputs.

    Raises:
        IncompatibleError: the artifact holds no golden I/O.
        WrongNumbersError: an output is outside its tolerance.
    """
    from windows_side.golden import compare_golden

    if artifact.manifest.golden is None:
        raise IncompatibleError(
            "the artifact holds no golden I/O to compare with",
            where=str(artifact.path),
            remedy="build it with --golden 1, or verify with --level load",
        )
    errors = compare_golden(artifact, model)
    wrong = [error for error in errors if not error.within]
    details = {"outputs": [asdict(error) for error in errors]}
    if wrong:
        worst = max(wrong, key=lambda error: error.relative_l2)
        raise WrongNumbersError(
            f"{len(wrong)} of {len(errors)} outputs are outside their tolerance; the worst is {worst.name} of sample "
            f"{worst.sample}: relative error {worst.relative_l2:.2e} (allowed {worst.tolerance.relative_l2:.0e}), "
            f"worst element at {worst.worst_index}: {worst.worst_got:.6g} instead of {worst.worst_want:.6g}",
            where=str(artifact.path),
            remedy="build with a higher --precision or --no-tf32, and compare",
        )
    return details
