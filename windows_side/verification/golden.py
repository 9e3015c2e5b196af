"""Compares a loaded model with its golden I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.manifest.models import Tolerance, ValueSpec
from windows_side.execution.call import call_of
from windows_side.execution.samples import read_golden
from windows_side.verification.array_error import compare_arrays
from windows_side.verification.output_error import OutputError


def compare_golden(artifact: Artifact, model: Any) -> list[OutputError]:
    """Runs every golden sample through a loaded model, and compares the outputs.

    Raises:
        MalformedArtifactError: golden I/O is not what the manifest describes.
    """
    errors: list[OutputError] = []
    precision = artifact.manifest.precision
    for number, (inputs, wanted) in enumerate(read_golden(artifact)):
        args, kwargs = call_of(artifact.manifest, inputs, model.device)
        outputs = pytree.tree_leaves(model(*args, **kwargs))
        costs = (precision.errors if precision else None) or [None] * len(wanted)
        for spec, got, want, cost in zip(artifact.manifest.outputs, outputs, wanted, costs, strict=True):
            if spec.dtype is not None and want is not None:  # a constant output is the manifest's own
                errors.append(replace(_compare(artifact, number, spec, got, want), precision_error=cost))
    return errors


def _compare(artifact: Artifact, number: int, spec: ValueSpec, got: torch.Tensor, want: torch.Tensor) -> OutputError:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise malformed_golden(artifact, f"output {spec.name} is {got.dtype} {tuple(got.shape)}")
    golden = artifact.manifest.golden
    tolerance = golden.tolerance.get(str(spec.dtype)) if golden else None
    if tolerance is None:
        raise malformed_golden(artifact, f"the manifest gives no tolerance for {spec.dtype}")
    return compare_output(got, want, tolerance, name=spec.name, sample=number)


def compare_output(
    got: torch.Tensor, want: torch.Tensor, tolerance: Tolerance, *, name: str, sample: int = 0
) -> OutputError:
    """Compares two tensors as :func:`.array_error.compare_arrays` does."""
    dtype = str(want.dtype).removeprefix("torch.")
    return compare_arrays(_doubles(got), _doubles(want), tolerance, name=name, dtype=dtype, sample=sample)


def _doubles(value: torch.Tensor) -> np.ndarray[Any, Any]:
    value = value.detach().cpu().resolve_conj().resolve_neg()
    return value.to(torch.complex128 if value.is_complex() else torch.float64).numpy()
