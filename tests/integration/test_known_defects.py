"""Whoever builds what TensorRT-RTX was seen to compute wrongly is told; the cases are those that ran on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linux_side.known_defects import doubts
from tests.integration.harness import build_here

pytestmark = pytest.mark.rtx


class AfterLinear(nn.Module):
    def __init__(self, tail: Callable[[Tensor], Any], bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 32, bias=bias)
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        return self.tail(self.linear(x))


# What follows the linear layer, and whether the GPU's numbers were right.
SEEN = {
    "relu, times 2": (lambda h: h.relu() * 2, False),
    "gelu, plus 1 and times 2": (lambda h: (nn.functional.gelu(h) + 1, nn.functional.gelu(h) * 2), False),
    "relu": (lambda h: h.relu(), True),
    "relu, plus 1": (lambda h: h.relu().abs() + 1, True),
    "plus 1 and times 2": (lambda h: (h + 1, h * 2), True),
    "sigmoid, times 2": (lambda h: h.sigmoid() * 2, True),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_was_seen_wrong_is_doubted_and_nothing_else(tmp_path: Path, case: str) -> None:
    tail, right = SEEN[case]
    torch.manual_seed(0)
    built = build_here(AfterLinear(tail).eval(), (torch.randn(4, 16),), folder=tmp_path)
    found = [doubt for partition in built.partitions.values() for doubt in doubts(partition)]
    assert bool(found) is not right
    if found:
        assert "--torch-executed-op aten.mul.Tensor" in found[0]


def test_without_a_bias_there_is_nothing_to_leave_out(tmp_path: Path) -> None:
    built = build_here(AfterLinear(lambda h: h.relu() * 2, bias=False).eval(), (torch.randn(4, 16),), folder=tmp_path)
    assert not any(doubts(partition) for partition in built.partitions.values())
