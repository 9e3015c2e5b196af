"""Weights and buffers in an artifact's own entries, as bytes in C order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.artifact import Artifact
from toolchain.container.entry_names import is_tensor_list
from toolchain.errors import MalformedArtifactError
from toolchain.graph.values import SCALAR_TYPES
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from windows_side.session.dtypes import size_in_bytes


@dataclass(frozen=True)
class Weight:
    """A tensor of the artifact's: its elements in C order."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes


def read_weights(artifact: Artifact, names: set[str]) -> dict[str, Weight]:
    """The tensors that torch saved under these names, their digests checked.

    Raises:
        MalformedArtifactError: one is missing, or is not as its description says.
    """
    found: dict[str, Weight] = {}
    for entry in filter(is_tensor_list, artifact.container.entries) if names else ():
        document = load_json(artifact.read_entry(entry, size_limit=TENSOR_LIST.size), where=entry, limit=TENSOR_LIST)
        for name, payload in document["config"].items():
            if name in names:
                found[name] = _read(artifact, f"{entry.rpartition('/')[0]}/{payload['path_name']}", payload)
    if missing := names - found.keys():
        raise MalformedArtifactError(f"the tensor {min(missing)!r} is missing", where=str(artifact.path))
    return found


def _read(artifact: Artifact, entry: str, payload: dict[str, Any]) -> Weight:
    where = f"{artifact.path}, entry {entry}"
    try:
        meta = payload["tensor_meta"]
        dtype = SCALAR_TYPES[meta["dtype"]]
        shape = tuple(int(size["as_int"]) for size in meta["sizes"])
        strides = tuple(int(stride["as_int"]) for stride in meta["strides"])
        offset = int(meta["storage_offset"]["as_int"])
    except (LookupError, TypeError, ValueError) as error:
        raise MalformedArtifactError("a tensor's description cannot be read", where=where) from error
    size, data = size_in_bytes((1,), dtype), artifact.read_entry(entry)
    raw = np.ndarray(len(data) // size, np.dtype(f"V{size}"), data)
    reach = 0 if 0 in shape else 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((*shape, *strides, offset), default=0) < 0 or offset + reach > raw.size:
        raise MalformedArtifactError("a tensor reaches past the end of its entry", where=where)
    view = np.lib.stride_tricks.as_strided(raw[offset:], shape, [stride * size for stride in strides], writeable=False)
    return Weight(shape, dtype, view.tobytes())
