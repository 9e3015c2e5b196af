"""Models whose golden outputs would be misleading, and models with dynamic sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.integration.cases import Case, Case2, Example
from tests.integration.cases.randomness import live_noise

__all__ = ["live_noise"]

X = torch.linspace(-1, 1, 32).reshape(4, 8)


def padded_encoder() -> Example:
    """An encoder for which eager PyTorch uses nested tensors and returns zeros at the padding; the program does not."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 1)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[:, 3:] = True
    model = Case2(lambda s, x, y: s.encoder(x, src_key_padding_mask=y), encoder=encoder)
    return model.eval(), (torch.randn(2, 5, 16), padding)


class Counting(nn.Module):
    """A model that counts its calls in Python, which torch.export does not record."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu() + self.calls


def counting() -> Example:
    return Counting().eval(), (X,)


def not_finite() -> Example:
    return Case(lambda s, x: (x.sqrt(), 1 / x.relu(), x * 2)).eval(), (X,)


def all_equal() -> Example:
    return Case(lambda s, x: (x * 0 + 3, x.relu() * 0, x + 1)).eval(), (X,)


def blind() -> Example:
    """A model with one output that depends only on a weight, and one that nearly does."""
    weight = torch.linspace(1, 2, 8)
    return Case(lambda s, x: (s.weight * 2, s.weight + x * 1e-6, s.weight * x), weight=weight).eval(), (X,)


def embedding() -> Example:
    """A model with indices that no size keeps in range, two dynamic sizes, and a guard on one of them."""
    torch.manual_seed(0)

    def forward(s: Any, x: Tensor) -> Tensor:
        hidden = s.table(x)
        return s.linear(hidden) * (2 if x.shape[1] % 4 == 0 else 3)

    model = Case(forward, table=nn.Embedding(7, 8), linear=nn.Linear(8, 5))
    return model.eval(), (torch.tensor([[0, 6, 3, 1, 2, 5, 4, 6], [6, 5, 4, 3, 2, 1, 0, 0]]),)


def rows_by_index() -> Example:
    """A model with indices into the rows of another input; with fewer rows the example's are out of range."""
    return Case2(lambda s, x, y: x[y].relu()).eval(), (X, torch.tensor([3, 0, 2]))


class Cache(nn.Module):
    """A model that returns its own state, which the next call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return self.total


def cache() -> Example:
    return Cache().eval(), (X,)
