"""Files of arrays: a call's inputs, its outputs, and golden I/O. numpy and safetensors alone."""

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
    """A call's inputs from a safetensors file that names the tensors as the manifest names the inputs.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    try:
        arrays = _arrays(source.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise unreadable_inputs(error, source) from error
    return named_inputs(manifest, arrays, source)


def sample_leaves(artifact: Artifact, source: Path | None = None) -> list[Any]:
    """The leaves of a call to try a session with: a file's, golden inputs, or random ones of the least sizes.

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
        UsageError: it cannot be written; what was there before is still there.
    """
    write_outputs(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}), out)


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[Array | None]]]:
    """The golden samples: each the leaves of a call, and the outputs' leaves.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    return golden_samples(artifact, _arrays, lambda array: array.dtype.name)


def _arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file, each its own copy."""
    found: dict[str, Any] = {}
    for name, tensor in deserialize(data):
        dtype = numpy_dtype(SAFETENSORS_DTYPES[tensor["dtype"]])
        found[name] = np.ndarray(tensor["shape"], dtype, bytes(tensor["data"])).copy()
    return found
