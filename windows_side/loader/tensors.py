"""Reads the weights, buffers and constants of an artifact from its entries; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toolchain.artifact import Artifact
from toolchain.container.entry_names import TENSOR_LISTS
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from windows_side.loader.graph_values import dtype_of, integer, the_only


def read_tensors(artifact: Artifact, names: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns tensors of an artifact by name. Tensors of the same entry share its memory.

    Args:
        artifact: an artifact whose digests have been checked.
        names: the names of the tensors to read.
        device: where the tensors are put.

    Raises:
        MalformedArtifactError: a tensor is missing, is listed twice, or does not fit its description.
    """
    found: dict[str, torch.Tensor] = {}
    wanted = set(names)
    for listing in TENSOR_LISTS:
        if listing not in artifact.container.entries:
            continue
        folder = listing.rpartition("/")[0]
        document = load_json(artifact.container.read(listing), where=listing, limit=TENSOR_LIST)
        storages: dict[str, torch.Tensor] = {}
        for name in wanted & document["config"].keys():
            payload = document["config"][name]
            where = f"{artifact.path}, entry {folder}/{payload['path_name']}"
            if name in found:
                raise MalformedArtifactError(f"the tensor {name!r} is listed twice", where=where)
            try:
                found[name] = _tensor(artifact, folder, payload, storages, device)
            except (LookupError, TypeError, ValueError, RuntimeError) as error:
                raise MalformedArtifactError(f"a tensor cannot be read: {error}", where=where) from error
    if missing := wanted - found.keys():
        raise MalformedArtifactError(f"the tensor {min(missing)!r} is missing", where=str(artifact.path))
    return found


def _tensor(
    artifact: Artifact, folder: str, payload: dict[str, Any], storages: dict[str, torch.Tensor], device: torch.device
) -> torch.Tensor:
    path, meta = payload["path_name"], payload["tensor_meta"]
    dtype = dtype_of(meta["dtype"])
    shape = [_known(size) for size in meta["sizes"]]
    strides = [_known(stride) for stride in meta["strides"]]
    offset = _known(meta["storage_offset"])
    if meta["layout"] != 7:
        raise ValueError("it is not dense")
    if path not in storages:
        storages[path] = _storage(artifact.container.read(f"{folder}/{path}"), dtype).to(device)
    storage = storages[path]
    if storage.dtype != dtype:
        raise ValueError("two tensors of one entry have different dtypes")
    reach = 0 if 0 in shape else 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if len(shape) != len(strides) or min((*shape, *strides, offset), default=0) < 0 or offset + reach > storage.numel():
        raise ValueError("it reaches past the end of its entry")
    tensor = torch.as_strided(storage, shape, strides, offset)
    if payload["is_param"] is True:
        return torch.nn.Parameter(tensor, requires_grad=meta["requires_grad"] is True)
    return tensor


def _storage(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    """Returns the elements of an entry in writable memory."""
    if not data:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _known(size: Any) -> int:
    kind, content = the_only(size)
    if kind != "as_int":
        raise ValueError("its size is not known")
    return integer(content)
