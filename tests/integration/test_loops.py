"""No engine has a loop, because no CUDA graph captures one that has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.integration.harness import Built, assert_right, build_here
from tests.integration.network.control import LOOP_KINDS

pytestmark = pytest.mark.rtx


class Summing(nn.Module):
    def __init__(self, sums: Callable[..., Any]) -> None:
        super().__init__()
        self.sums = sums

    def forward(self, x: Tensor) -> Any:
        return self.sums(x)


def loops(built: Built) -> list[str]:
    """Returns the kinds of layers that only loops have."""
    return [layer.kind for network in built.networks.values() for layer in network.layers if layer.kind in LOOP_KINDS]


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


SUMS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "of rows, columns, and from the last dimension": (
        lambda x: (x.cumsum(0), x.cumsum(1), x.unsqueeze(-1).expand(-1, -1, 2).cumsum(-2)),
        floats(3, 37),
    ),
    "of booleans": (lambda x: (x > 0).cumsum(1), floats(3, 37)),
    "of integers beyond what floats count": (lambda x: x.cumsum(1), (floats(3, 37) * 1e6).long() << 12),
    "of small integers": (lambda x: (x.cumsum(-1), x.cumsum(-1, dtype=torch.float32)), (floats(3, 37) * 1e8).int()),
    "of halves": (lambda x: x.cumsum(1), floats(3, 37).half()),
    "of one element, and of a scalar": (lambda x: (x[:, :1].cumsum(1), x.sum().cumsum(0)), floats(3, 4)),
    "of nothing": (lambda x: x.cumsum(1), floats(3, 0)),
    "of many": (lambda x: x.cumsum(1), floats(1, 50_000)),
}


@pytest.mark.parametrize("case", SUMS)
def test_a_running_sum_is_in_the_engine_without_a_loop(tmp_path: Path, case: str) -> None:
    sums, x = SUMS[case]
    made = build_here(Summing(sums), (x,), folder=tmp_path, require_full_coverage=True)
    assert made.networks and not loops(made)
    assert_right(made, Summing(sums), (x,))


def positions(x: Tensor) -> Tensor:
    """Adds the places of a picture's elements, as EdgeNeXt computes them from a mask."""
    inside = ~torch.zeros(x.shape, dtype=torch.bool)
    down, across = (inside.cumsum(dim, dtype=torch.float32) for dim in (1, 2))
    return x + down / (down[:, -1:] + 1e-6) + across / (across[:, :, -1:] + 1e-6)


@pytest.mark.parametrize("varies", [("x.0=1:2:4",), ("x.0=1:2:4", "x.1=2:9:20", "x.2=2:13:20")], ids=["batch", "all"])
def test_places_that_are_counted_from_a_mask_are_in_the_engine_without_a_loop(
    tmp_path: Path, varies: tuple[str, ...]
) -> None:
    made = build_here(Summing(positions), (floats(2, 9, 13),), folder=tmp_path, dynamic=varies)
    assert made.networks and not loops(made)
    others = [(floats(4, 9, 13),)] if len(varies) == 1 else [(floats(1, 2, 20),), (floats(4, 20, 2),)]
    assert_right(made, Summing(positions), (floats(2, 9, 13),), other_args=others)


def test_a_running_sum_whose_size_depends_on_data_stays_in_pytorch(tmp_path: Path) -> None:
    made = build_here(Summing(lambda x: (x * 2)[x > 0].cumsum(0)), (floats(3, 7),), folder=tmp_path)
    assert "aten.cumsum.default" in {item.operator for item in made.artifact.manifest.fallback}
    assert made.networks and not loops(made)
    assert_right(made, Summing(lambda x: (x * 2)[x > 0].cumsum(0)), (floats(3, 7),))


def test_a_long_running_sum_rounds_less_than_one_that_adds_element_by_element(tmp_path: Path) -> None:
    x = floats(1, 50_000).abs()
    made = build_here(Summing(lambda x: x.cumsum(1)), (x,), folder=tmp_path)
    right, total, one_by_one = x.double().cumsum(1), torch.zeros(()), []
    for value in x[0]:
        total = total + value
        one_by_one.append(total)
    errors = [((sums - right).norm() / right.norm()).item() for sums in (made.run_networks(x), torch.stack(one_by_one))]
    assert errors[0] < errors[1] / 10


class SumsBesideAttention(nn.Module):
    """As in an encoder and a decoder: the one attends, the other counts where its mask begins anew."""

    def forward(self, q: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        attended = F.scaled_dot_product_attention(q, q, q)
        return attended, y.cumsum(-1), (y > 0).cumsum(-1), y.unsqueeze(-1).expand(-1, -1, 3).cumsum(1)


@pytest.mark.parametrize("greatest", [33, 300])
def test_running_sums_of_any_length_beside_attention_are_in_one_engine(tmp_path: Path, greatest: int) -> None:
    """TensorRT-RTX's builder ends the process at a loop beside attention."""
    random = torch.Generator().manual_seed(0)

    def call(batch: int, length: int) -> tuple[Tensor, Tensor]:
        return torch.randn(1, 2, 5, 8, generator=random), torch.randn(batch, length, generator=random)

    dynamic = ("y.0=1:1:4", f"y.1=2:12:{greatest}")
    made = build_here(SumsBesideAttention(), call(1, 12), folder=tmp_path, dynamic=dynamic, require_full_coverage=True)
    others = [call(1, 2), call(4, greatest), call(3, 17)]
    assert_right(made, SumsBesideAttention(), call(1, 12), other_args=others)


class Bag(nn.Module):
    """A bag of embeddings whose offsets are an input, computed from a size that varies, or constant."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4, mode="sum")

    def forward(self, index: Tensor, offsets: Tensor | None = None) -> Tensor:
        return self.bag(index, offsets) * 2


class Pairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pdist(x * 2) + 1


FLAT, TABLE = torch.tensor([0, 2, 3, 4, 5, 8]), torch.tensor([[0, 2, 3], [4, 5, 8]])
LOOPS: dict[str, tuple[nn.Module, tuple[Tensor, ...], tuple[str, ...], bool]] = {
    "offsets are an input": (Bag(), (FLAT, torch.tensor([0, 2, 3])), (), True),
    "a number of bags that varies": (Bag(), (TABLE,), ("index.0=1:2:4",), True),
    "bags of one size": (Bag(), (TABLE,), (), False),
    "distances of rows whose number varies": (Pairs(), (floats(5, 4),), ("x.0=2:5:9",), True),
    "distances of rows": (Pairs(), (floats(5, 4),), (), False),
}


@pytest.mark.parametrize("case", LOOPS)
def test_what_would_be_a_loop_stays_in_pytorch_and_the_rest_does_not(tmp_path: Path, case: str) -> None:
    module, args, dynamic, in_pytorch = LOOPS[case]
    made = build_here(module, args, folder=tmp_path, dynamic=dynamic)
    kept = {item.operator for item in made.artifact.manifest.fallback}
    assert made.networks and not loops(made)
    assert any("_embedding_bag" in name or "_pdist" in name for name in kept) == in_pytorch
    others = {"index.0=1:2:4": [(TABLE[:1],), (TABLE.repeat(2, 1),)], "x.0=2:5:9": [(floats(2, 4),), (floats(9, 4),)]}
    assert_right(made, module, args, other_args=[call for size in dynamic for call in others[size]])
