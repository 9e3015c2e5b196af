"""A call that changes state in place and returns it returns the new value, which is also the state afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_right, build_here

pytestmark = pytest.mark.rtx


class Stateful(nn.Module):
    def __init__(self, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.call, self.linear = call, nn.Linear(4, 4)
        self.register_buffer("total", torch.ones(2, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.call(self, self.linear(x))


def sums_and_counts(model: Any, x: Tensor) -> Any:
    return model.total.add_(x), model.calls.add_(1)


def itself(model: Any, x: Tensor) -> Any:
    model.total += x
    return model.total


def twice(model: Any, x: Tensor) -> Any:
    model.total.mul_(0.5).add_(x)
    return model.total, model.total * 2


def seen_in_another_shape(model: Any, x: Tensor) -> Any:
    return model.total.add_(x).t(), x


CALLS = [sums_and_counts, itself, twice, seen_in_another_shape]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_what_is_changed_in_place_may_be_returned(tmp_path: Path, call: Callable[[Any, Tensor], Any]) -> None:
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    built = build_here(Stateful(call), (x,), folder=tmp_path)
    assert built.original is not None
    assert_right(built, built.original, (x,), other_args=[(x + 1,), (x * 2,)])
