"""Models like those of Torch-TensorRT's export, keyword and cross-compile tests, written anew, pass our exporter.

Upstream compares cosines on a GPU. Here the wiring is compared to the bit, and every network with the model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples import models
from tests.integration.graphs import Graph, in_torch, random
from tests.integration.harness import build_here
from tests.integration.test_graphs import assert_networks_right, assert_right, build_graph
from toolchain.checker.structure import check_structure
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx

IMAGE = random(1, 3, 24, 24)


class ConvolutionAndRelu(nn.Module):
    """A convolution and a ReLU; ``finish`` makes the outputs from both results."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3)
        self.finish = finish

    def forward(self, x: Tensor) -> Any:
        hidden = self.convolution(x)
        return self.finish(hidden, torch.relu(hidden))


class KeywordNetwork(nn.Module):
    """A model with optional keywords: a tensor, a dict and a list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(4), nn.Flatten()
        )

    def forward(
        self,
        x: Tensor,
        b: Tensor | None = None,
        c: Tensor | None = None,
        d: dict[str, Tensor] | None = None,
        e: tuple[Tensor, ...] | list[Tensor] = (),
    ) -> Tensor:
        x = self.features(x)
        x = x @ b if b is not None and b.dim() == 2 else x + (5 if b is None else b)
        x = x if c is None else x * c
        x = x if d is None else x - d["value"]
        for factor in e:
            x = x @ factor
        return x


class RangeOfASize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(1, x.shape[-1] + 1, dtype=torch.float32, device=x.device)


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b)


class AddTwice(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return torch.add(a, b), torch.add(a, b)


def half_of_relu() -> nn.Module:
    return ConvolutionAndRelu(lambda hidden, relu: relu * 0.5)


def half_and_relu() -> nn.Module:
    return ConvolutionAndRelu(lambda hidden, relu: (hidden * 0.5, torch.relu(hidden * 0.5)))


FLAT = 4 * 6 * 6
SIX, EIGHT = torch.tensor(6), torch.tensor(8)
TO_TEN = random(FLAT, 10)
BATCH = random(4, 3, 24, 24)
PAIR = (random(2, 3), random(2, 3) * 2)

UPSTREAM: dict[str, Graph] = {
    "fully convertible": Graph(lambda: ConvolutionAndRelu(lambda hidden, relu: relu), (IMAGE,)),
    "several outputs": Graph(half_and_relu, (IMAGE,)),
    "relu in PyTorch": Graph(half_of_relu, (IMAGE,), options=in_torch("aten.relu.default")),
    "convolution in PyTorch": Graph(half_of_relu, (IMAGE,), options=in_torch("aten.convolution.default")),
    "ResNet-18, dynamic": Graph(
        lambda: models.resnet18()[0],
        (random(4, 3, 64, 64),),
        calls=(((random(1, 3, 64, 64),), {}), ((random(8, 3, 64, 64),), {})),
        options={"dynamic": ("x.0=1:4:8",)},
    ),
    "optional keywords": Graph(KeywordNetwork, (IMAGE,), {"b": SIX, "d": {"value": EIGHT}}),
    "optional keywords, dynamic batch": Graph(
        KeywordNetwork,
        (BATCH,),
        {"b": SIX, "d": {"value": EIGHT}},
        calls=(((IMAGE,), {"d": {"value": EIGHT + 1}, "b": SIX}),),
        options={"dynamic": ("x.0=1:4:8",)},
    ),
    "dynamic keyword": Graph(
        KeywordNetwork,
        (BATCH,),
        {"b": TO_TEN, "d": {"value": EIGHT}},
        calls=(((IMAGE,), {"b": TO_TEN[:, :1], "d": {"value": EIGHT}}),),
        options={"dynamic": ("x.0=1:4:8", "b.1=1:5:10")},
    ),
    "dynamic value in a dict": Graph(
        KeywordNetwork,
        (BATCH,),
        {"b": TO_TEN, "d": {"value": random(4, 10)}},
        calls=(((IMAGE,), {"b": TO_TEN, "d": {"value": random(1, 10)}}),),
        options={"dynamic": ("x.0=1:4:8", "d.value.0=1:4:8")},
    ),
    "dynamic value in a list": Graph(
        KeywordNetwork,
        (BATCH,),
        {"b": TO_TEN, "e": [random(10, 10), random(10, 5)]},
        calls=(((IMAGE,), {"b": TO_TEN, "e": [random(10, 10), random(10, 1)]}),),
        options={"dynamic": ("x.0=1:4:8", "e.1.1=1:5:10")},
    ),
    "cross-compiled add": Graph(Add, PAIR),
    "cross-compiled add, two outputs": Graph(AddTwice, PAIR),
}


@pytest.mark.parametrize("name", UPSTREAM)
def test_upstream_graph(tmp_path: Path, name: str) -> None:
    built = build_graph(UPSTREAM[name], tmp_path)
    assert_right(built, UPSTREAM[name])
    assert_networks_right(built, UPSTREAM[name])


def test_too_few_operators_for_an_engine(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="TensorRT can take no operator"):
        build_here(half_and_relu(), (IMAGE,), folder=tmp_path, min_block_size=5)


def test_a_plain_program_when_asked(tmp_path: Path) -> None:
    """The program has no placeholder node, so stock torch reads it without Torch-TensorRT."""
    model = half_and_relu()
    built = build_here(model, (IMAGE,), folder=tmp_path, min_block_size=5, allow_no_engine=True)
    assert (built.artifact.engines, built.artifact.manifest.coverage.in_engines) == ((), 0)
    check_structure(built.artifact)
    with torch.no_grad():
        torch.testing.assert_close(built.run(IMAGE), model(IMAGE))
    assert "no_op_placeholder" not in built.artifact.skeleton.decode()
    assert torch.export.load(built.artifact.path).graph_signature.user_outputs


def test_a_size_alone_needs_no_engine(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="TensorRT can take no operator"):
        build_here(RangeOfASize(), (IMAGE,), folder=tmp_path)
