"""Buffers that rewrites add to a module hide none of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from linux_side.fx.graph_copy import add_buffer
from tests.integration.harness import assert_right, build_here


def test_a_buffer_that_is_added_gets_a_free_name() -> None:
    module = nn.Module()
    module.register_buffer("a_b", torch.zeros(1))
    module.a_b_1 = nn.Parameter(torch.ones(1), requires_grad=False)
    assert add_buffer(module, "a.b", torch.full((1,), 2.0)) == "a_b_2"
    assert add_buffer(module, "c.d", torch.full((1,), 3.0)) == "c_d"
    assert [value.item() for value in (module.a_b, module.a_b_1, module.a_b_2, module.c_d)] == [0, 1, 2, 3]


class Rotated(nn.Module):
    """A complex table, a table in fp64, and others whose names a rewrite might choose."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(12.0).reshape(3, 4)
        self.register_buffer("turns", torch.polar(torch.ones(3, 4), angles))
        self.register_buffer("turns_real", torch.full((3, 4), 7.0))
        self.register_buffer("steps", angles.double() / 10)
        self.register_buffer("steps_fp32", torch.full((3, 4), 5.0))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.view_as_real(torch.view_as_complex(x) * self.turns)
        return turned.sum(-1) * self.turns_real + (x[..., 0] * self.steps).float() * self.steps_fp32


@pytest.mark.rtx
def test_tables_with_names_like_those_of_rewrites_keep_their_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Rotated(), torch.randn(2, 3, 4, 2)
    assert_right(build_here(model, (x,), folder=tmp_path), model, (x,))
