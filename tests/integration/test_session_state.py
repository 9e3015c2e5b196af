"""A session changes state that no engine writes in place, and inputs, as the original model does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.integration.harness import build_here
from tests.integration.sessions import session_of
from tests.unit.windows_side.session.host_gpu import on_host
from toolchain.graph.torch_free import operators_for_torch

pytestmark = pytest.mark.rtx


class Sums(nn.Module):
    """A model that returns its state from before and after a call, which the next call must not change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.total * 1
        self.total.add_(x)
        self.calls.add_(1)
        return before, self.total * 1, self.calls * 1


class Swap(nn.Module):
    """A model that exchanges two buffers, and stores the input in a third."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.full((2, 3), 1.0))
        self.register_buffer("b", torch.full((2, 3), 2.0))
        self.register_buffer("last", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        old, seen = self.a.clone(), self.last.clone()
        self.a.copy_(self.b)
        self.b.copy_(old)
        self.last.copy_(x)
        return torch.relu(self.a * 10 + self.b + seen)


class Exchange(nn.Module):
    """A model that exchanges the values of two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        old = x.clone()
        result = torch.relu(x * 2 + y)
        x.copy_(y)
        y.copy_(old)
        return result


@pytest.mark.parametrize(("model", "inputs"), [(Sums, 1), (Swap, 1), (Exchange, 2)])
def test_what_a_call_changes_is_changed_as_the_model_changes_it(
    model: type[nn.Module], inputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = tuple(torch.zeros(2, 3) for _ in range(inputs))
    built = build_here(model(), example, folder=tmp_path, require_no_torch=True)
    assert not operators_for_torch(built.artifact.graph())
    original, kept = model(), []
    torch.manual_seed(0)
    with session_of(built, on_host(monkeypatch)) as session:
        for _ in range(4):
            values = [torch.randn(2, 3) for _ in range(inputs)]
            ours, theirs = ([value.clone() for value in values] for _ in range(2))
            got, want = pytree.tree_leaves(session(*ours)), pytree.tree_leaves(original(*theirs))
            kept.append(([*got], [value.clone() for value in want]))
            for a, b in zip([*got, *ours], [*want, *theirs], strict=True):
                assert torch.equal(a, b)
    for got, want in kept:  # no later call has changed them
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
