"""Checks an artifact's integrity (every digest) and structure (its parts agree)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from toolchain.artifact import Artifact
from toolchain.checker.classes import check_classes
from toolchain.checker.golden_header import check_golden_header
from toolchain.checker.safety import require_safe_to_load
from toolchain.errors import MalformedArtifactError

Level = Literal["integrity", "structure", "load", "numbers"]
LEVELS: tuple[str, ...] = get_args(Level)
"""How far ``verify`` goes, each level including those before it."""


def check_integrity(artifact: Artifact) -> dict[str, Any]:
    """Checks every byte that a digest covers.

    Returns:
        The numbers of ``entries`` and ``engines``, for a report.

    Raises:
        MalformedArtifactError: a digest is wrong.
    """
    artifact.check_integrity()
    return {"entries": len(artifact.container.entries), "engines": len(artifact.engines)}


def check_structure(artifact: Artifact, trust: str | None = None) -> dict[str, Any]:
    """Checks that graph, engine info, plan headers and manifest agree, and that torch would run no code from the file.

    Args:
        artifact: the artifact to check.
        trust: why a foreign file is accepted although torch would run code from it.

    Returns:
        The number of ``placeholder_nodes``, for a report.

    Raises:
        MalformedArtifactError: the parts contradict each other.
        UntrustedError: torch would unpickle, evaluate or import a part of it.
        UsageError: the reason is empty.
    """
    require_safe_to_load(artifact, trust)
    check_golden_header(artifact)
    check_classes(artifact)
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
                    f"the {what} is {found!r}, and the manifest states {claimed!r}",
                    where=where,
                )
    return {"placeholder_nodes": len(artifact.placeholders)}
