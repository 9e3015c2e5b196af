"""Products of one input become one product where their weights are too large to hold twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.driver import room
from linux_side.rewrites import siblings

LINEAR = torch.ops.aten.linear.default


class Attention(torch.nn.Module):
    """Queries, and keys and values with fewer heads; one product has a bias, and one has a different input."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(32, width, bias=False) for width in (48, 16, 32))
        self.gate, self.out = torch.nn.Linear(32, 48), torch.nn.Linear(48, 8, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query = self.query(x)
        return self.key(x) * 2, self.value(x) + 1, self.out(query * self.gate(x)), query


class Unusual(torch.nn.Module):
    """Weights that are unusual: shared by two products and read elsewhere, a view of a transpose, or of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = torch.nn.Parameter(torch.randn(16, 32))
        self.transposed = torch.nn.Parameter(torch.randn(32, 24).t())
        self.row = torch.nn.Parameter(torch.randn(32))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        linear = torch.nn.functional.linear
        tied = linear(x, self.tied) + linear(x, self.tied).relu()
        return tied, linear(x, self.transposed), linear(x, self.row), self.tied.sum()


def graph(*, sizes: dict[int, torch.export.Dim] | None = None) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    program = torch.export.export(Attention(), (torch.randn(2, 5, 32),), dynamic_shapes=(sizes or {},))
    return program.run_decompositions({}).module(check_guards=False)


def products(gm: torch.fx.GraphModule) -> int:
    return len(list(gm.graph.find_nodes(op="call_function", target=LINEAR)))


@pytest.fixture(autouse=True)
def everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "WORTH", 0)
    monkeypatch.setattr(siblings, "_LEAST", 0)


@pytest.mark.parametrize("sizes", [{}, {1: torch.export.Dim("length", min=2, max=9)}], ids=["fixed", "a size varies"])
def test_one_product_gives_what_several_gave(sizes: dict[int, torch.export.Dim]) -> None:
    gm = graph(sizes=sizes)
    x = torch.randn(2, 7 if sizes else 5, 32)
    before = gm(x)
    assert products(gm) == 5
    siblings.join_siblings(gm, torch.cat)
    assert products(gm) == 3
    for one, other in zip(gm(x), before, strict=True):
        torch.testing.assert_close(one, other)


def test_unusual_weights_are_joined_or_stay_and_the_numbers_are_the_same() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 32)
    gm = torch.export.export(Unusual(), (x,)).module(check_guards=False)
    before = gm(x)
    siblings.join_siblings(gm, torch.cat)
    assert products(gm) == 2
    for one, other in zip(gm(x), before, strict=True):
        torch.testing.assert_close(one, other)


def test_a_bias_that_is_a_keyword_is_not_lost() -> None:
    gm = graph()
    (biased,) = (node for node in gm.graph.find_nodes(op="call_function", target=LINEAR) if len(node.args) == 3)
    biased.kwargs, biased.args = {"bias": biased.args[2]}, biased.args[:2]
    gm.recompile()
    x = torch.randn(2, 5, 32)
    before = gm(x)
    siblings.join_siblings(gm, torch.cat)
    assert products(gm) == 3
    for one, other in zip(gm(x), before, strict=True):
        torch.testing.assert_close(one, other)


def test_where_two_sizes_vary_products_stay() -> None:
    gm = graph(sizes={0: torch.export.Dim("batch", min=2, max=9), 1: torch.export.Dim("length", min=2, max=9)})
    siblings.join_siblings(gm, torch.cat)
    assert products(gm) == 5


def test_small_networks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "WORTH", 32 * (48 + 16 + 32) * 4 + 1)
    gm = graph()
    siblings.join_siblings(gm, torch.cat)
    assert products(gm) == 5


def test_the_estimate_of_memory_knows_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert room.TWICE == siblings.WORTH
