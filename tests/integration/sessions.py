"""Makes sessions that run partitions in the place of engines, on a GPU that is the host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.integration.harness import Built
from tests.unit.windows_side.session.host_gpu import Host
from toolchain.manifest.models import EngineEntry
from windows_side import Session


class PartitionFunction:
    """Computes an engine's outputs by its partition."""

    def __init__(self, entry: EngineEntry, partition: torch.fx.GraphModule) -> None:
        self._entry = entry
        self._partition = partition

    def __call__(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        given = [_tensor(inputs[b.name], b.dtype).clone() for b in self._entry.inputs]
        for binding, result in zip(self._entry.outputs, self._run(given), strict=True):
            np.copyto(outputs[binding.name], _bits(result))

    def shapes(self, inputs: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Returns the outputs' shapes for inputs of these shapes."""
        zeros = [torch.zeros(inputs[b.name], dtype=getattr(torch, b.dtype)) for b in self._entry.inputs]
        results = zip(self._entry.outputs, self._run(zeros), strict=True)
        return {binding.name: tuple(result.shape) for binding, result in results}

    def _run(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            result = self._partition(*tensors)
        return list(result) if isinstance(result, (tuple, list)) else [result]


def session_of(built: Built, host: Host) -> Session:
    """Opens a session of the artifact."""
    for engine in built.artifact.engines:
        partition = built.partitions[engine.info.name]
        host.functions[engine.index] = PartitionFunction(engine.entry, partition)
    return Session(built.artifact, runtime_cache=False)


def _tensor(array: Any, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _bits(tensor: torch.Tensor) -> Any:
    """Returns a numpy array of the same bits; bfloat16 becomes uint16, because numpy lacks it."""
    return tensor.contiguous().view(torch.uint16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
