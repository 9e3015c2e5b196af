"""Factories of small models that were once built wrongly, one file for each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Example = tuple[torch.nn.Module, tuple[Any, ...]]


class Case(torch.nn.Module):
    """A module with parts and buffers, whose forward is a function of the module and its input."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


class Case2(Case):
    """A :class:`Case` with two inputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:  # type: ignore[override]
        return self.function(self, x, y)
