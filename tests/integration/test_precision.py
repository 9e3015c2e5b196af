"""`build --precision`: numbers, inputs that are changed in place, and products of tensors that a model makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples import models
from tests.integration.harness import assert_same_wiring, build_here
from toolchain.errors import UsageError

pytestmark = pytest.mark.rtx

LARGE = 1e5  # more than fp16 holds

LIMITS = {"fp16": 5e-3, "bf16": 3e-2}


class Writes(nn.Module):
    """It writes a column of a nested keyword argument through a view, and scales a copy of the other input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        cast = x.to(self.scale.dtype)  # a different tensor, unless x is fp32
        state["cache"][:, 1].copy_(x[:, 0])
        return cast + self.scale


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_input_is_changed_in_place(tmp_path: Path, precision: str) -> None:
    original, (total, x) = models.accumulator()
    built = build_here(models.accumulator()[0], (total.clone(), x.clone()), folder=tmp_path, precision=precision)
    wanted, untouched = total.clone(), x.clone()
    for _ in range(3):
        with torch.no_grad():
            original(wanted, x)
        result = built.run(total, x)
        assert total.dtype is torch.float32
        torch.testing.assert_close(total, wanted, rtol=2e-2, atol=0)
        torch.testing.assert_close(result, 2 * wanted, rtol=2e-2, atol=0)
    assert torch.equal(x, untouched)


def test_what_is_not_written_keeps_its_precision(tmp_path: Path) -> None:
    def call() -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        return (torch.full((3, 4), 0.5),), {"state": {"cache": torch.full((3, 4), LARGE)}}

    args, kwargs = call()
    built = build_here(Writes(), args, kwargs, folder=tmp_path, precision="fp16")
    args, kwargs = call()
    built.run(*args, **kwargs)
    wanted = torch.full((3, 4), LARGE)
    wanted[:, 1] = 0.5
    assert torch.equal(kwargs["state"]["cache"], wanted)
    assert torch.equal(args[0], torch.full((3, 4), 0.5))


class Product(nn.Module):
    """A model that multiplies its weights by a tensor that it makes, which stays fp32 when the weights are cast."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed = x + torch.linspace(0.5, 1.5, x.shape[-1])
        result = self.product(mixed, self.weight)
        return result, result.relu() + 1


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


PRODUCTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]] = {
    "linear": (torch.nn.functional.linear, random(4, 8), random(3, 8)),
    "matmul": (torch.matmul, random(2, 4, 8), random(8, 3)),
    "addmm": (lambda x, w: torch.addmm(torch.ones(3), x, w), random(4, 8), random(8, 3)),
    "convolution": (torch.nn.functional.conv2d, random(1, 3, 8, 8), random(4, 3, 3, 3)),
}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_precisions(tmp_path: Path, name: str, precision: str) -> None:
    product, x, weight = PRODUCTS[name]
    want = Product(product, weight.clone())(x)
    built = build_here(Product(product, weight.clone()), (x,), folder=tmp_path, precision=precision)
    assert [spec.dtype for spec in built.artifact.manifest.outputs] == ["float32"] * 2
    for got, expected in zip(assert_same_wiring(built, x), want, strict=True):
        assert (got - expected).norm() / expected.norm() < LIMITS[precision]


@pytest.mark.parametrize("precision", LIMITS)
def test_the_example_with_parts_in_pytorch(tmp_path: Path, precision: str) -> None:
    """PyTorch has no `igamma` of halves: the rules keep it in fp32."""
    model, args = models.mixed()
    with torch.no_grad():
        want = model(*args)
    kept = ["aten.arange.start_step", "aten.full.default"]
    built = build_here(
        model, args, folder=tmp_path, precision=precision, dynamic=("x.0=1:4:8",), torch_executed_ops=kept
    )
    got = assert_same_wiring(built, *args)
    assert (got - want).norm() / want.norm() < LIMITS[precision]


class ComplexBuffer(nn.Module):
    """A rotary embedding with a complex buffer, which ``model.half()`` makes real."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self.register_buffer("turns", torch.polar(torch.ones(4, 4), random(4, 4) * 3))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.project(x).float().reshape(1, 4, 4, 2))
        return torch.view_as_real(pairs * self.turns).flatten(2).to(x.dtype)


class RopeTable(nn.Module):
    """A table of angles of 4096 positions: a rounded frequency changes the cosine of the last one by 0.64."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, 8, 2).float() / 8))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        angles = position[:, None].float() * self.inv_freq[None].float()
        return self.project(x) * torch.cos(angles).repeat(1, 2)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    ("model", "args"),
    [(ComplexBuffer, (random(1, 4, 8),)), (RopeTable, (random(4096, 8), torch.arange(4096)))],
    ids=["complex_buffer", "rope_table"],
)
def test_positions_keep_their_numbers(tmp_path: Path, model: Any, args: tuple[Tensor, ...], precision: str) -> None:
    torch.manual_seed(0)
    made = build_here(model(), args, folder=tmp_path, precision=precision)
    assert made.original is not None
    with torch.no_grad():
        got, want = made.run_networks(*args), made.original(*args)
    assert (got - want).norm() / want.norm() < LIMITS[precision]


def test_what_the_caller_keeps_stays_in_fp32(tmp_path: Path) -> None:
    model, (x,) = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), (random(2, 4),)
    made = build_here(model, (x,), folder=tmp_path, precision="fp16", keep_fp32=["0", "aten.relu"])
    (partition,) = made.partitions.values()
    weights = {n.target: partition.get_parameter(n.target).dtype for n in partition.graph.find_nodes(op="get_attr")}
    assert weights["0.weight"] is torch.float32 and weights["2.weight"] is torch.float16


def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(4, 4)})

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["encoder"](x)

    with pytest.raises(UsageError, match="names no module") as raised:
        build_here(Model(), (random(2, 4),), folder=tmp_path, precision="fp16", keep_fp32=["parts.encodr"])
    assert "parts.encoder" in str(raised.value)
