"""Compares the dtypes and shapes in the golden entry's header (safetensors) with the manifest. Imports no torch."""

from __future__ import annotations

import struct
from typing import Any

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import GOLDEN_HEADER
from toolchain.manifest.models import DynamicSize, ValueSpec, allows

# safetensors' names of the manifest's dtypes.
SAFETENSORS_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def check_golden_header(artifact: Artifact) -> None:
    """Refuses golden I/O whose tensors differ from those that the manifest describes.

    Raises:
        MalformedArtifactError: the entry is not a safetensors file, or a tensor is missing, unknown or different.
    """
    golden = artifact.manifest.golden
    if (golden is None) == (GOLDEN_ENTRY in artifact.container.entries):
        raise malformed_golden(artifact, "either only the manifest or only the archive has it")
    if golden is None:
        return
    tensors = _read_header(artifact)
    tensors.pop("__metadata__", None)
    described = 0
    for kind, specs in (("input", artifact.manifest.inputs), ("output", artifact.manifest.outputs)):
        for index, spec in enumerate(specs):
            if spec.dtype is not None:
                described += golden.samples
                for name in (f"{sample}.{kind}.{index}" for sample in range(min(golden.samples, len(tensors) + 1))):
                    _check_tensor(artifact, name, tensors.get(name), spec)
    if described != len(tensors):
        raise malformed_golden(artifact, "it holds a tensor that the manifest does not describe")


def _read_header(artifact: Artifact) -> dict[str, Any]:
    entry, container = artifact.container.entry(GOLDEN_ENTRY), artifact.container
    if entry.size < 8:
        raise malformed_golden(artifact, "it is not a safetensors file")
    (length,) = struct.unpack("<Q", b"".join(container.chunks(entry.offset, 8)))
    if length > min(GOLDEN_HEADER.size, entry.size - 8):
        raise malformed_golden(artifact, f"it states a header of {length} bytes, which is too long")
    header = load_json(
        b"".join(container.chunks(entry.offset + 8, length)),
        where=f"{artifact.path}, entry {GOLDEN_ENTRY}",
        limit=GOLDEN_HEADER,
    )
    if not isinstance(header, dict):
        raise malformed_golden(artifact, "it is not a safetensors file")
    return header


def _check_tensor(artifact: Artifact, name: str, tensor: Any, spec: ValueSpec) -> None:
    if not isinstance(tensor, dict):
        raise malformed_golden(artifact, f"the tensor {name} is missing")
    dtype, shape = tensor.get("dtype"), tensor.get("shape")
    if SAFETENSORS_DTYPES.get(str(dtype)) != spec.dtype:
        raise malformed_golden(artifact, f"the tensor {name} is {dtype}, and the manifest states {spec.dtype}")
    sizes = spec.shape or []
    fits = isinstance(shape, list) and len(shape) == len(sizes) and all(map(_fits, sizes, shape))
    if not fits:
        raise malformed_golden(artifact, f"the tensor {name} has a shape that the manifest does not allow")


def _fits(wanted: int | DynamicSize, size: Any) -> bool:
    return type(size) is int and allows(wanted, size)


def malformed_golden(artifact: Artifact, problem: str) -> MalformedArtifactError:
    """Returns the error for golden I/O that differs from the manifest's description."""
    return MalformedArtifactError(f"the golden I/O is wrong: {problem}", where=f"{artifact.path}, entry {GOLDEN_ENTRY}")
