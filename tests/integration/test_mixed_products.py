"""A model that is cast, and makes an fp32 tensor itself: its products build and run in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from examples import models
from linux_side.frontend.source import export_source
from linux_side.options import BuildOptions
from tests.integration.harness import assert_same_wiring, build_here

pytestmark = pytest.mark.rtx

Tensor = torch.Tensor
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
LIMITS = {"fp16": 5e-3, "bf16": 3e-2}


class Product(nn.Module):
    """What it makes itself stays fp32 when its weights are cast, and meets them in a product."""

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


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_precisions(tmp_path: Path, name: str, precision: str) -> None:
    product, x, weight = PRODUCTS[name]
    want = Product(product, weight.clone())(x)
    built = build_here(Product(product, weight.clone()), (x,), folder=tmp_path, precision=precision)
    assert [spec.dtype for spec in built.artifact.manifest.outputs] == ["float32"] * 2
    for got, expected in zip(assert_same_wiring(built, x), want, strict=True):
        assert (got - expected).norm() / expected.norm() < LIMITS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_example_with_factories_in_pytorch(tmp_path: Path, precision: str) -> None:
    """PyTorch has no half-precision `igamma` on the CPU, so that this one is built and not run."""
    model, args = models.mixed()
    kept = ["aten.arange.start_step", "aten.full.default"]
    built = build_here(
        model, args, folder=tmp_path, precision=precision, dynamic=("x.0=1:4:8",), torch_executed_ops=kept
    )
    assert len(built.artifact.engines) == 3
    assert built.artifact.engines[2].entry.outputs[0].shape == [-1, 4]


def test_a_model_that_makes_nothing_itself_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    program = export_source("test", model, (random(2, 4),), {}, BuildOptions(precision="fp16", golden=0)).program
    casts = [node for node in program.graph.nodes if "_to_copy" in str(node.target)]
    assert not casts  # but `aten.to`, where inputs and outputs keep their dtypes
