"""Compiled engines, of our own build or of Torch-TensorRT's, as the exporter takes them."""

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
    """An engine that is ready to be exported.

    Attributes:
        info: its engine info.
        plan: the serialized engine.
        live: its ``torch.classes.tensorrt.Engine``; None if none was set up.
    """

    info: EngineInfo
    plan: EngineSource
    live: Any = None


class EngineModule(torch.nn.Module):
    """A compiled engine in place of the partition that it was built from.

    It is never called: the exporter replaces its call by an operator.
    """

    def __init__(self, engine: CompiledEngine) -> None:
        super().__init__()
        self.compiled = engine

    def forward(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        raise RuntimeError("an engine runs only after export")


def compiled_engine(module: torch.nn.Module) -> CompiledEngine | None:
    """Returns the engine of a submodule, ours or Torch-TensorRT's; None for a submodule that stays in PyTorch."""
    if isinstance(module, EngineModule):
        return module.compiled
    if type(module).__name__ == "TorchTensorRTModule":
        return CompiledEngine(*engine_of_upstream_module(module))
    return None
