"""Dynamic batches whose example has one row, to which tracing specializes many models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_same_wiring, build_here
from toolchain.manifest.models import DynamicSize

pytestmark = pytest.mark.rtx


class Tokens(nn.Module):
    """A model with a class token before the others and attention over all, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.attention(x, x, x, need_weights=False)[0][:, 0]


def test_an_example_of_one_row_gives_every_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tokens().eval()
    built = build_here(model, (torch.randn(1, 5, 16),), folder=tmp_path, dynamic=("x.0=1:2:8",))
    shape = built.artifact.manifest.inputs[0].shape
    assert shape is not None
    size = shape[0]
    assert isinstance(size, DynamicSize) and (size.min, size.max) == (1, 8)
    for batch in (1, 2, 8):
        x = torch.randn(batch, 5, 16)
        torch.testing.assert_close(assert_same_wiring(built, x), model(x), rtol=1e-4, atol=1e-5)
    assert built.artifact.manifest.golden is not None  # with the one row of the example
