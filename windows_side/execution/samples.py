"""Sample calls of a model: its golden inputs, inputs of a file, or random ones of the sizes in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file

from toolchain.artifact import Artifact
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec
from windows_side.calling.files import golden_samples, named_inputs, unreadable_inputs
from windows_side.execution.call import Call, call_of


def sample_call(artifact: Artifact, device: torch.device) -> Call:
    """Returns the first golden sample's arguments and keywords on ``device``, or random ones from a fixed seed."""
    golden = read_golden(artifact)
    generator = torch.Generator().manual_seed(0)
    leaves = golden[0][0] if golden else [_random(spec, generator) for spec in artifact.manifest.inputs]
    return call_of(artifact.manifest, leaves, device)


def read_inputs(manifest: Manifest, source: Path) -> list[Any]:
    """Returns the leaves of a call from a safetensors file that names the tensors as the manifest names the inputs.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    try:
        tensors = load_file(source)
    except Exception as error:
        raise unreadable_inputs(error, source) from error
    named = named_inputs(manifest, tensors, source)
    return [named[spec.name] if spec.dtype else spec.value for spec in manifest.inputs]


def _random(spec: ValueSpec, generator: torch.Generator) -> Any:
    if spec.dtype is None:
        return spec.value
    shape = [size.min if isinstance(size, DynamicSize) else size for size in spec.shape or []]
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.zeros(shape, dtype=dtype)


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[torch.Tensor | None]]]:
    """Returns the golden samples: for each, the leaves of a call and the leaves of its outputs.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    return golden_samples(artifact, load_safetensors, lambda tensor: str(tensor.dtype).removeprefix("torch."))
