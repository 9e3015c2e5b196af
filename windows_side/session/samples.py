"""Files of arrays: a call's inputs, its outputs, and golden I/O. numpy and safetensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import UsageError
from toolchain.io.atomic import write_bytes
from toolchain.manifest.models import Manifest, ValueSpec
from windows_side.session.dtypes import numpy_dtype

# What safetensors calls the manifest's dtypes.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip

Array = np.ndarray[Any, Any]


def read_feed(manifest: Manifest, source: Path) -> dict[str, Any]:
    """A call's inputs from a safetensors file that names the tensors as the manifest names the inputs.

    Raises:
        UsageError: the file cannot be read, or an input is missing.
    """
    try:
        arrays = _arrays(source.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UsageError(
            f"the inputs cannot be read: {error}", where=str(source), remedy="write them with safetensors"
        ) from error
    names = [spec.name for spec in manifest.inputs if spec.dtype]
    if missing := [name for name in names if name not in arrays]:
        raise UsageError(
            f"the file lacks the input {', '.join(missing)}",
            where=str(source),
            remedy="name each tensor as `trtcross inspect` names the input",
        )
    return {name: arrays[name] for name in names}


def write_arrays(arrays: dict[str, Array], out: Path) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
        UsageError: it cannot be written; what was there before is still there.
    """
    try:
        write_bytes(out, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    except OSError as error:
        raise UsageError(
            f"the outputs cannot be written: {error.strerror or error}",
            where=str(out),
            remedy="name a file in a folder that exists and can be written to, and look at the free disk space",
        ) from error


def read_golden(artifact: Artifact) -> list[tuple[list[Any], list[Array | None]]]:
    """The golden samples: each the leaves of a call, and the outputs' leaves.

    Raises:
        MalformedArtifactError: the entry's tensors are not those that the manifest describes.
    """
    manifest = artifact.manifest
    if manifest.golden is None:
        return []
    try:
        arrays = _arrays(artifact.read_entry(GOLDEN_ENTRY))
    except (SafetensorError, KeyError, ValueError) as error:
        raise malformed_golden(artifact, f"it is no safetensors file: {error}") from error
    samples = []
    for number in range(manifest.golden.samples):
        inputs = [_leaf(artifact, arrays, f"{number}.input.{i}", spec) for i, spec in enumerate(manifest.inputs)]
        outputs = [_leaf(artifact, arrays, f"{number}.output.{i}", spec) for i, spec in enumerate(manifest.outputs)]
        samples.append((inputs, outputs))
    if arrays:
        raise malformed_golden(artifact, f"it holds {sorted(arrays)[0]!r}, which the manifest does not describe")
    return samples


def _leaf(artifact: Artifact, arrays: dict[str, Array], key: str, spec: ValueSpec) -> Any:
    if spec.dtype is None:
        return spec.value
    array = arrays.pop(key, None)
    if array is None or array.dtype.name != spec.dtype:
        found = "missing" if array is None else array.dtype.name
        raise malformed_golden(artifact, f"{key} is {found}, the manifest says {spec.dtype}")
    return array


def _arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file, each its own copy."""
    found = {}
    for name, tensor in deserialize(data):
        dtype = numpy_dtype(_DTYPES[tensor["dtype"]])
        found[name] = np.ndarray(tensor["shape"], dtype, bytes(tensor["data"])).copy()
    return found
