"""A few light operators between parts in PyTorch get no engine of their own; heavy or large ones do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_right, assert_same_wiring, build_here

pytestmark = pytest.mark.rtx

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def parted(x: Tensor) -> Tensor:
    """Calls an operator for which TensorRT has no converter."""
    return torch.nextafter(x, x + 1)


class Between(nn.Module):
    """A model of two engines that are worth it, with some operators between two parts in PyTorch."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = parted(self.first(x))
        return self.last(parted(self.between(x)))


class LightAlone(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return parted(x.relu() * 2).sigmoid()


def light(x: Tensor) -> Tensor:
    return x.relu().view(8, 4).transpose(0, 1).reshape(4, 8) * 2


def long(x: Tensor) -> Tensor:
    return ((x.relu() * 2).sigmoid() + 1).tanh().exp()


def product(x: Tensor) -> Tensor:
    return x @ x.t() @ x


def large(x: Tensor) -> Tensor:
    return (x.view(32, 1, 1) * torch.ones(32, 256, 160)).sum((1, 2)).view(4, 8)


@pytest.mark.parametrize(("between", "engines"), [(light, 2), (long, 3), (product, 3), (large, 3)])
def test_a_small_light_engine_between_pieces_of_pytorch_stays_there(
    tmp_path: Path, between: Callable[[Tensor], Tensor], engines: int
) -> None:
    torch.manual_seed(0)
    built = build_here(Between(between), (X,), folder=tmp_path, golden=0, min_block_size=None)
    assert built.original is not None
    assert len(built.artifact.engines) == engines
    assert_same_wiring(built, X)
    assert_right(built, built.original, (X,))


def test_each_engine_is_built_where_the_least_size_is_given(tmp_path: Path) -> None:
    built = build_here(Between(light), (X,), folder=tmp_path, golden=0, min_block_size=1)
    assert len(built.artifact.engines) == 3


def test_where_every_engine_is_small_all_are_built(tmp_path: Path) -> None:
    built = build_here(LightAlone(), (X,), folder=tmp_path, golden=0, min_block_size=None)
    assert len(built.artifact.engines) == 2
