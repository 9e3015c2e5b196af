"""Compares a session, TensorRT's or onnxruntime's, with golden I/O. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.manifest.models import ValueSpec
from windows_side.session.samples import Array, read_golden
from windows_side.verification.array_error import compare_arrays
from windows_side.verification.output_error import OutputError


class RunsLeaves(Protocol):
    """A session that runs an artifact on the leaves of a call."""

    def run_leaves(self, leaves: Sequence[Any]) -> list[Any]: ...


def compare_session(artifact: Artifact, session: RunsLeaves) -> list[OutputError]:
    """Runs every golden sample through a session, and compares the outputs.

    Raises:
        MalformedArtifactError: golden I/O is not what the manifest describes.
    """
    errors: list[OutputError] = []
    precision = artifact.manifest.precision
    for number, (inputs, wanted) in enumerate(read_golden(artifact)):
        outputs = session.run_leaves(inputs)
        costs = (precision.errors if precision else None) or [None] * len(wanted)
        for spec, got, want, cost in zip(artifact.manifest.outputs, outputs, wanted, costs, strict=True):
            if spec.dtype is not None and want is not None:  # a constant output is the manifest's own
                errors.append(replace(_compare(artifact, number, spec, got, want), precision_error=cost))
    return errors


def _compare(artifact: Artifact, sample: int, spec: ValueSpec, got: Array, want: Array) -> OutputError:
    golden = artifact.manifest.golden
    if got.shape != want.shape or got.dtype != want.dtype:
        raise malformed_golden(artifact, f"output {spec.name} is {got.dtype} {got.shape}")
    tolerance = golden.tolerance.get(str(spec.dtype)) if golden else None
    if tolerance is None:
        raise malformed_golden(artifact, f"the manifest gives no tolerance for {spec.dtype}")
    return compare_arrays(got, want, tolerance, name=spec.name, dtype=str(spec.dtype), sample=sample)
