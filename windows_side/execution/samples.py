"""A call to try a model with: its golden inputs, or random ones of the sizes that its manifest names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import UsageError
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec
from windows_side.execution.call import Call, call_of


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


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[torch.Tensor | None]]]:
    """The samples: each the leaves of a call, and the outputs' leaves.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    manifest = artifact.manifest
    if manifest.golden is None:
        return []
    try:
        tensors = load_safetensors(artifact.read_entry(GOLDEN_ENTRY))
    except Exception as error:
        raise malformed_golden(artifact, f"it is no safetensors file: {error}") from error
    samples = []
    for number in range(manifest.golden.samples):
        inputs = [_leaf(artifact, tensors, f"{number}.input.{i}", spec) for i, spec in enumerate(manifest.inputs)]
        outputs = [_leaf(artifact, tensors, f"{number}.output.{i}", spec) for i, spec in enumerate(manifest.outputs)]
        samples.append((inputs, outputs))
    if tensors:
        raise malformed_golden(artifact, f"it holds {sorted(tensors)[0]!r}, which the manifest does not describe")
    return samples


def _leaf(artifact: Artifact, tensors: dict[str, torch.Tensor], key: str, spec: ValueSpec) -> Any:
    if spec.dtype is None:
        return spec.value
    tensor = tensors.pop(key, None)
    if tensor is None or str(tensor.dtype) != f"torch.{spec.dtype}":
        found = "missing" if tensor is None else str(tensor.dtype)
        raise malformed_golden(artifact, f"{key} is {found}, the manifest says {spec.dtype}")
    return tensor
