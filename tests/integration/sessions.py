"""A session whose engines are the partitions from which they were built, on a GPU that is the host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.integration.harness import Built
from tests.unit.windows_side.session.host_gpu import Host
from toolchain.manifest.models import EngineEntry
from windows_side import Session


class PartitionFunction:
    """An engine's computation, by its partition."""

    def __init__(self, entry: EngineEntry, partition: torch.fx.GraphModule) -> None:
        self._entry = entry
        self._partition = partition

    def __call__(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        given = [_tensor(inputs[b.name], b.dtype).clone() for b in self._entry.inputs]
        for binding, result in zip(self._entry.outputs, self._run(given), strict=True):
            np.copyto(outputs[binding.name], _bits(result))

    def shapes(self, inputs: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The outputs' shapes for inputs of these shapes."""
        zeros = [torch.zeros(inputs[b.name], dtype=getattr(torch, b.dtype)) for b in self._entry.inputs]
        results = zip(self._entry.outputs, self._run(zeros), strict=True)
        return {binding.name: tuple(result.shape) for binding, result in results}

    def _run(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            result = self._partition(*tensors)
        return list(result) if isinstance(result, (tuple, list)) else [result]


def session_of(built: Built, host: Host) -> Session:
    """The artifact as a session has it."""
    for engine in built.artifact.engines:
        partition = built.partitions[engine.info.name]
        host.functions[engine.index] = PartitionFunction(engine.entry, partition)
    return Session(built.artifact, runtime_cache=False)


def _tensor(array: Any, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _bits(tensor: torch.Tensor) -> Any:
    """As numpy has it; bfloat16 as uint16, since numpy has no such type."""
    return tensor.contiguous().view(torch.uint16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
