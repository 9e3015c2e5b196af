"""Tensors without dimensions have none in an engine either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_same_wiring, build_here

pytestmark = pytest.mark.rtx

X = torch.arange(12.0).reshape(3, 4) / 7


class Counter(nn.Module):
    """State without dimensions, such as batch norm's count of batches and the count of tokens of a StaticCache."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.tokens.add_(x.shape[0])
        self.mean.mul_(0.5).add_(x.mean())
        return x * self.mean + self.tokens


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "sum and number": lambda x: x.sum() + 1,
    "number and sum": lambda x: 2 - x.sum(),
    "several": lambda x: (x.max() * 2, x.min() - 1, x.mean() > 0.5, x.sum().clamp(min=1)),
    "stacked": lambda x: torch.stack([x.sum() + 1, x.mean() * 2]),
    "as a row": lambda x: (x.sum() * 2).unsqueeze(0) + torch.zeros(1),
    "selected": lambda x: x[1, 2] * 3 + 1,
    "expanded": lambda x: (x.sum() + 1).expand(3),
}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_engine_gives_a_scalar_where_pytorch_does(name: str, tmp_path: Path) -> None:
    built = build_here(Function(FUNCTIONS[name]), (X,), folder=tmp_path)
    assert_same_wiring(built, X)
    bindings = [binding.shape for engine in built.artifact.manifest.engines for binding in engine.outputs]
    assert bindings == [value.shape for value in built.artifact.manifest.outputs]


def test_scalar_state_keeps_its_shape(tmp_path: Path) -> None:
    built = build_here(Counter(), (X,), folder=tmp_path)
    engine = built.artifact.manifest.engines[0]
    shapes = {binding.name: binding.shape for binding in engine.inputs}
    assert shapes["state_tokens"] == shapes["state_mean"] == []
    assert [binding.shape for binding in engine.outputs] == [[3, 4], [], []]
    original = Counter()
    for _ in range(3):
        assert torch.allclose(assert_same_wiring(built, X), original(X))
