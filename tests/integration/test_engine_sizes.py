"""Sizes in engines: each is a number, or computed from the shapes of tensors that the engine gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import Built, assert_right, assert_same_wiring, build_here

pytestmark = pytest.mark.rtx

SORT = "aten.sort.default"


class Around(nn.Module):
    """Sorts all values in PyTorch, between two engines of which both need the sizes of the inputs."""

    def __init__(self, continued: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.continued = continued

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        places = torch.arange(x.shape[1]).view(-1, 1) + torch.arange(x.shape[0] * y.shape[0]).sum()
        values = torch.sort((self.layer(x) + places).flatten())[0]
        return self.continued(values, x, y)


def viewed(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return values.view(x.shape[0], x.shape[1], 8) + 1.0


def counted(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return values.view(-1, x.shape[1], 8) * torch.arange(x.shape[1]).view(-1, 1)


def expanded(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return values.sum().expand(x.shape[1], x.shape[0]) * 2.0


def halved(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return values[: x.shape[1] // 2 + x.shape[0]] * 3.0


def of_two_inputs(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return values.view(x.shape[0], x.shape[1], 8).mean((0, 2)).unsqueeze(0).expand(y.shape[0], -1) * 0.5


CONTINUED = [viewed, counted, expanded, halved, of_two_inputs]


def _inputs(batch: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(batch)
    return torch.randn(batch, rows, 8), torch.randn(batch + 1, 3).to(dtype)


def _operators(built: Built) -> list[str]:
    return [node["target"] for node in built.artifact.graph()["graph_module"]["graph"]["nodes"]]


def _built(continued: Callable[..., Tensor], dtype: torch.dtype, folder: Path) -> Built:
    torch.manual_seed(0)
    options: Any = {"dynamic": ("x.0=1:2:4", "x.1=2:4:8", "y.0=1:3:6"), "torch_executed_ops": [SORT]}
    return build_here(Around(continued), _inputs(2, 4, dtype), folder=folder, **options)


@pytest.mark.parametrize("continued", CONTINUED, ids=lambda function: function.__name__)
def test_an_engine_reads_sizes_from_tensors(continued: Callable[..., Tensor], tmp_path: Path) -> None:
    """A size as a tensor of one element would be copied to the GPU and back at every call, which breaks a capture."""
    built = _built(continued, torch.float32, tmp_path)
    assert len(built.artifact.engines) == 2
    assert "torch.ops.aten.full.default" not in _operators(built)
    assert_right_at_other_sizes(built, torch.float32)


def test_a_tensor_that_an_engine_cannot_take_is_not_passed_for_its_shape(tmp_path: Path) -> None:
    """It would keep the operators that need the size in PyTorch."""
    built = _built(of_two_inputs, torch.int16, tmp_path)
    assert "aten.expand.default" not in {operator.operator for operator in built.artifact.manifest.fallback}
    assert_right_at_other_sizes(built, torch.int16)


def assert_right_at_other_sizes(built: Built, dtype: torch.dtype) -> None:
    calls = [_inputs(2, 4, dtype), _inputs(1, 8, dtype), _inputs(4, 2, dtype)]
    for call in calls:
        assert_same_wiring(built, *call)
    assert built.original is not None
    assert_right(built, built.original, calls[0], other_args=calls[1:])


class Channels(nn.Module):
    """Puts values into channels by a view; their number is a formula of the sizes, which only a guard fixes."""

    def __init__(self, layer: nn.Module, dims: int = 2) -> None:
        super().__init__()
        self.smaller = nn.Conv2d(3, 4, 3, stride=2, padding=1)  # to (size - 1) // 2 + 1
        self.layer = layer
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        rows = self.smaller(x).permute(0, 2, 3, 1)
        spread = rows.reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)
        if spread.shape[1] != 4:
            raise ValueError("expected four channels")
        result: Tensor = self.layer(spread if self.dims == 2 else spread.flatten(2))
        return result


LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, padding=1), 2),
    "convolution in groups": (lambda: nn.Conv2d(4, 4, 3, groups=2), 2),
    "convolution of sequences": (lambda: nn.Conv1d(4, 6, 3, padding=1), 1),
    "transposed convolution": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), 2),
    "batch norm": (lambda: nn.BatchNorm2d(4), 2),
    "maximum pooling": (lambda: nn.MaxPool2d(2), 2),
    "average pooling": (lambda: nn.AvgPool2d(2), 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_channels_that_a_guard_fixes_are_a_number(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, dims = LAYERS[name]
    dynamic = ("x.0=1:2:4", "x.2=8:8:16", "x.3=8:8:16")
    built = build_here(Channels(make(), dims), (torch.randn(2, 3, 8, 8),), folder=tmp_path, dynamic=dynamic)
    assert not built.artifact.manifest.fallback
    assert len(built.artifact.engines) == 1
    sizes: list[Any] = [(1, 3, 16, 12), (4, 3, 8, 16)]
    assert built.original is not None
    assert_right(
        built, built.original, (torch.randn(2, 3, 8, 8),), other_args=[(torch.randn(size),) for size in sizes]
    )  # fmt: skip


class Windows(nn.Module):
    """Has a table with as many entries as sevens that cover a quarter of the width."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(-(-(x.shape[1] // 4) // 7) * 7)
        return x.unsqueeze(-1) * places.to(x.dtype).cos()


@pytest.mark.parametrize("widths", ["8:16:28", "8:16:40"], ids=["one value", "two values"])
def test_a_formula_that_has_one_value_in_the_range_is_a_number(widths: str, tmp_path: Path) -> None:
    built = build_here(Windows(), (torch.randn(2, 16),), folder=tmp_path, dynamic=(f"x.1={widths}",))
    assert not built.artifact.manifest.fallback
    least, _, most = map(int, widths.split(":"))
    assert built.original is not None
    others: list[Any] = [(torch.randn(2, size),) for size in (least, most)]
    assert_right(built, built.original, (torch.randn(2, 16),), other_args=others)


class Patches(nn.Module):
    """Asks of the number of its rows only to choose between two ways to the same result."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[1] // 4
        parts = x[:, : rows * 4].reshape(x.shape[0], rows, 4)
        return parts.sum(2) * 0.25 if rows == 3 else parts.mean(2)


def test_a_formula_is_not_fixed_by_a_guard_that_was_dropped(tmp_path: Path) -> None:
    """Torch still takes the guard for true: the engine would have three rows at every size."""
    built = build_here(Patches(), (torch.randn(2, 12),), folder=tmp_path, dynamic=("x.1=8:12:20",))
    assert built.original is not None
    others: list[Any] = [(torch.randn(2, size),) for size in (8, 11, 16, 20)]
    assert_right(built, built.original, (torch.randn(2, 12),), other_args=others)
