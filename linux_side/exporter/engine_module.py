"""What the exporter knows of a compiled engine, wherever it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from linux_side.upstream import engine_of_upstream_module
from toolchain.engine.info import EngineInfo
from toolchain.graph.writer import EngineSource


@dataclass(frozen=True)
class CompiledEngine:
    """An engine ready to be exported.

    Attributes:
        info: its engine info.
        plan: the serialized engine.
        live: a ``torch.classes.tensorrt.Engine`` of it, where one was set up.
    """

    info: EngineInfo
    plan: EngineSource
    live: Any = None


class EngineModule(torch.nn.Module):
    """Stands in a compiled graph where the partition was from which its engine was built.

    It is never called: the exporter replaces the call by an operator.
    """

    def __init__(self, engine: CompiledEngine) -> None:
        super().__init__()
        self.compiled = engine

    def forward(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        raise RuntimeError("an engine runs only after export")


def compiled_engine(module: torch.nn.Module) -> CompiledEngine | None:
    """The engine of a submodule, ours or Torch-TensorRT's own; None for one that stays in PyTorch."""
    if isinstance(module, EngineModule):
        return module.compiled
    if type(module).__name__ == "TorchTensorRTModule":
        return CompiledEngine(*engine_of_upstream_module(module))
    return None
