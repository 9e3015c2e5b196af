"""A call to try a model with: its golden inputs, or random ones of the sizes that its manifest names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from toolchain.artifact import Artifact
from toolchain.errors import UsageError
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec
from windows_side.execution.call import Call, call_of
from windows_side.verification.golden import read_golden


def sample_call(artifact: Artifact, device: torch.device) -> Call:
    """Arguments and keywords on ``device``; random values come from a fixed seed."""
    golden = read_golden(artifact)
    generator = torch.Generator().manual_seed(0)
    leaves = golden[0][0] if golden else [_random(spec, generator) for spec in artifact.manifest.inputs]
    return call_of(artifact.manifest, leaves, device)


def read_inputs(manifest: Manifest, source: Path) -> list[Any]:
    """The leaves of a call from a safetensors file that names the tensors as the manifest names the inputs.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    try:
        tensors = load_file(source)
    except Exception as error:
        raise UsageError(
            f"the inputs cannot be read: {error}", where=str(source), remedy="write them with safetensors"
        ) from error
    missing = [spec.name for spec in manifest.inputs if spec.dtype and spec.name not in tensors]
    if missing:
        raise UsageError(
            f"the file lacks the input {', '.join(missing)}",
            where=str(source),
            remedy="name each tensor as `trtcross inspect` names the input",
        )
    return [tensors[spec.name] if spec.dtype else spec.value for spec in manifest.inputs]


def _random(spec: ValueSpec, generator: torch.Generator) -> Any:
    if spec.dtype is None:
        return spec.value
    shape = [size.min if isinstance(size, DynamicSize) else size for size in spec.shape or []]
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.zeros(shape, dtype=dtype)
