"""Reads weights and buffers from an artifact's entries, as bytes in C order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.artifact import Artifact
from toolchain.container.entry_names import is_tensor_list
from toolchain.errors import MalformedArtifactError
from toolchain.graph.tensors import StoredTensor, stored_tensors
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from windows_side.session.dtypes import size_in_bytes


@dataclass(frozen=True)
class Weight:
    """A tensor of the artifact, with its elements in C order."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes


def read_weights(artifact: Artifact, names: set[str]) -> dict[str, Weight]:
    """Reads the tensors that torch saved under these names, and checks their digests.

    Raises:
        MalformedArtifactError: a tensor is missing or damaged, or does not fit its description.
    """
    found: dict[str, Weight] = {}
    for entry in filter(is_tensor_list, artifact.container.entries) if names else ():
        document = load_json(artifact.read_entry(entry, size_limit=TENSOR_LIST.size), where=entry, limit=TENSOR_LIST)
        try:
            stored = stored_tensors(document, entry)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise MalformedArtifactError(
                "a tensor's description cannot be read", where=f"{artifact.path}, entry {entry}"
            ) from error
        found |= {name: _read(artifact, tensor) for name, tensor in stored.items() if name in names}
    if missing := names - found.keys():
        raise MalformedArtifactError(f"the tensor {min(missing)!r} is missing", where=str(artifact.path))
    return found


def _read(artifact: Artifact, tensor: StoredTensor) -> Weight:
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    size, data = size_in_bytes((1,), tensor.dtype), artifact.read_entry(tensor.entry)
    raw: Any = np.ndarray(len(data) // size, np.dtype(f"V{size}"), data)
    reach = 0 if 0 in shape else 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if offset + reach > raw.size:
        raise MalformedArtifactError(
            "a tensor reaches past the end of its entry", where=f"{artifact.path}, entry {tensor.entry}"
        )
    view = np.lib.stride_tricks.as_strided(raw[offset:], shape, [stride * size for stride in strides], writeable=False)
    return Weight(shape, tensor.dtype, view.tobytes())
