"""Reads a call's inputs and golden I/O from files of arrays, and writes outputs, by numpy and safetensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import SAFETENSORS_DTYPES
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec
from windows_side.calling.files import golden_samples, named_inputs, unreadable_inputs, write_outputs
from windows_side.session.dtypes import numpy_dtype

Array = np.ndarray[Any, Any]


def read_feed(manifest: Manifest, source: Path) -> dict[str, Any]:
    """Reads a call's inputs from a safetensors file that names the tensors as the manifest names the inputs.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    try:
        arrays = _arrays(source.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise unreadable_inputs(error, source) from error
    return named_inputs(manifest, arrays, source)


def sample_leaves(artifact: Artifact, source: Path | None = None) -> list[Any]:
    """Returns the leaves of a sample call: those of a file, the golden inputs, or random ones of the least sizes.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    specs = artifact.manifest.inputs
    if source is not None:
        feed = read_feed(artifact.manifest, source)
        return [feed[spec.name] if spec.dtype else spec.value for spec in specs]
    if golden := read_golden(artifact):
        return golden[0][0]
    random = np.random.default_rng(0)
    return [_random(spec, random) for spec in specs]


def _random(spec: ValueSpec, random: np.random.Generator) -> Any:
    if spec.dtype is None:
        return spec.value
    shape = [size.min if isinstance(size, DynamicSize) else size for size in spec.shape or []]
    dtype = numpy_dtype(spec.dtype)
    return random.standard_normal(shape).astype(dtype) if "float" in spec.dtype else np.zeros(shape, dtype)


def write_arrays(arrays: dict[str, Array], out: Path) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
        UsageError: the file cannot be written; what was there before is unchanged.
    """
    write_outputs(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}), out)


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[Array | None]]]:
    """Returns the golden samples: for each, the leaves of a call and the leaves of its outputs.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    return golden_samples(artifact, _arrays, lambda array: array.dtype.name)


def _arrays(data: bytes) -> dict[str, Array]:
    """Returns the arrays of a safetensors file, each in memory of its own."""
    found: dict[str, Any] = {}
    for name, tensor in deserialize(data):
        dtype = numpy_dtype(SAFETENSORS_DTYPES[tensor["dtype"]])
        found[name] = np.ndarray(tensor["shape"], dtype, bytes(tensor["data"])).copy()
    return found
