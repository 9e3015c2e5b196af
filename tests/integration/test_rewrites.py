"""Operators that Torch-TensorRT computes wrongly are right in our networks, at the example's size and at others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from tests.integration.harness import assert_right, build_here

pytestmark = pytest.mark.rtx


@dataclass(frozen=True)
class Model:
    """A function of the inputs after a linear layer, inputs of other sizes, and options of the build."""

    function: Callable[..., Any]
    calls: list[tuple[Tensor, ...]]
    options: dict[str, Any] = field(default_factory=dict)


class Behind(nn.Module):
    """A module whose first input passes a linear layer, so that there is something for TensorRT."""

    def __init__(self, function: Callable[..., Any], width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(width, width)
        self.function = function

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return self.function(self.linear(x), *others)


def _rows(count: int, *others: Callable[[int], Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(count)
    return (torch.randn(count, 4), *(other(count) for other in others))


def _scattered(x: Tensor, index: Tensor) -> Tensor:
    return torch.zeros(3, 4).scatter_add(0, index[:, None].expand(-1, 4), x)


def _averaged(x: Tensor, index: Tensor) -> Tensor:
    return torch.ones(3, 4).scatter_reduce(0, index[:, None].expand(-1, 4), x, "mean", include_self=False)


def _copied(x: Tensor) -> Tensor:
    y = torch.zeros(4, 4)
    y.copy_(x.relu())
    return y


def _copied_and_summed(x: Tensor) -> Tensor:
    return _copied(x).sum(0)


def _last_column(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., -1] += 5
    return y


def _last_row(x: Tensor) -> Tensor:
    y = x.clone()
    y[-1] = 2
    y[:, -2:] *= 3
    return y


def _indices(count: int) -> Tensor:
    return torch.arange(count) % 3


def _compared(x: Tensor, index: Tensor) -> Tensor:
    return torch.cat([getattr(index, name)(0.5)[:, None] * x for name in ("eq", "ne", "lt", "le", "gt", "ge")], 1)


def _places(x: Tensor) -> Tensor:
    """Returns the distances of rows, as in ALiBi."""
    places = torch.arange(x.shape[0])
    return x @ x.T - 0.25 * (places[None] - places[:, None]).abs()


def _points(count: int) -> tuple[Tensor, ...]:
    return _rows(4, lambda _: torch.randn(1 + count % 3, count, 3))


ROWS = [_rows(6), _rows(2), _rows(16)]
INDEXED = [_rows(6, _indices), _rows(2, _indices), _rows(16, _indices)]
VARYING = {"dynamic": ("x.0=2:6:16",)}
BOTH_VARY = {"dynamic": ("x.0=2:6:16", "others_0.0=2:6:16")}
MODELS = {
    "scatter_add": Model(_scattered, INDEXED, BOTH_VARY),
    "scatter_reduce, mean": Model(_averaged, INDEXED, BOTH_VARY),
    "index_add": Model(lambda x, i: torch.zeros(3, 4).index_add(0, i, x), INDEXED, BOTH_VARY),
    "log_softmax, fp16": Model(lambda x: torch.log_softmax(x * 20, -1), ROWS, {**VARYING, "precision": "fp16"}),
    "log_softmax, fp32": Model(lambda x: torch.log_softmax(x * 200, -1), ROWS, VARYING),
    "cross entropy": Model(lambda x, i: F.cross_entropy(x * 90, i, reduction="none"), INDEXED, BOTH_VARY),
    "whole numbers compared with a fraction": Model(_compared, INDEXED, BOTH_VARY),
    "whole numbers and a fraction": Model(
        lambda x, i: x + (i * 0.5 + 0.25 - 1.5 * i)[:, None] * (0.75 - i)[:, None], INDEXED, BOTH_VARY
    ),
    "compared with a part of a size": Model(
        lambda x, i: (x < x.shape[0] / 14, x[:, 0] == x.shape[0] / 7, i > x.shape[0] / 7), INDEXED, BOTH_VARY
    ),
    "remainders of a part of a size": Model(
        lambda x: (x % (x.shape[0] / 7), x.fmod(x.shape[0] / 7), x.div(x.shape[0] / 7, rounding_mode="trunc")),
        ROWS, VARYING,
    ),
    "a power of a part of a size": Model(lambda x: torch.pow(x.shape[0] / 7, x), ROWS, VARYING),
    "filled with a part of a size": Model(
        lambda x: (x.masked_fill(x > 0, x.shape[0] / 7), torch.where(x > 0, x, x.shape[0] / 7)), ROWS, VARYING
    ),
    "a slope that is a part of a size": Model(lambda x: F.leaky_relu(x, x.shape[0] / 7) + 1, ROWS, VARYING),
    "distances of rows": Model(_places, ROWS, VARYING),
    "distances to the first points": Model(
        lambda x, points: torch.cdist(points[:, :8], points) * x.mean(),
        [_points(30), _points(26), _points(40)],
        {"dynamic": ("others_0.0=1:2:3", "others_0.1=26:30:40")},
    ),
    "copy of a row": Model(_copied, [_rows(1)]),
    "copy of a row, summed": Model(_copied_and_summed, [_rows(1)]),
    "last column": Model(_last_column, ROWS, VARYING),
    "last column, one operator in PyTorch": Model(
        _last_column, ROWS, {**VARYING, "torch_executed_ops": ["aten.slice_scatter.default"]}
    ),
    "last row": Model(_last_row, ROWS, VARYING),
    "variance over rows": Model(lambda x: x.var(0), ROWS, VARYING),
    "variance and mean of all": Model(lambda x: torch.var_mean(x, (0, 1)), ROWS, VARYING),
    "variance of large halves": Model(lambda x: (x * 300).std(1), ROWS, {**VARYING, "precision": "fp16"}),
    "causal attention with a cache": Model(
        lambda x: F.scaled_dot_product_attention(x[None, None, :3], x[None, None], x[None, None], is_causal=True),
        [_rows(6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_right_at_every_size(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    built = build_here(Behind(model.function, 4).eval(), model.calls[0], folder=tmp_path, **model.options)
    assert built.original is not None
    assert_right(built, built.original, model.calls[0], other_args=model.calls[1:])


def test_a_float_that_is_made_of_sizes_is_no_input_of_an_engine(tmp_path: Path) -> None:
    """The runtime accepts only tensors."""
    built = build_here(Behind(lambda x: torch.var_mean(x, (0, 1)), 4).eval(), ROWS[0], folder=tmp_path, **VARYING)
    assert len(built.artifact.engines) == 1 and not built.artifact.manifest.fallback


def test_a_scatter_that_adds_stays_in_pytorch(tmp_path: Path) -> None:
    built = build_here(Behind(_scattered, 4).eval(), INDEXED[0], folder=tmp_path, **BOTH_VARY)
    assert [entry.operator for entry in built.artifact.manifest.fallback] == ["aten.scatter_add.default"]


class Resized(nn.Module):
    """A picture behind a convolution, resized with antialiasing."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 1)
        self.how = how

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        size = {} if like is None else {"size": like.shape[2:]}
        return F.interpolate(self.first(x), antialias=True, **size, **self.how)


def _picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize(
    "how, precision",
    [
        ({"mode": "bicubic", "size": (21, 3)}, "fp32"),
        ({"mode": "bilinear", "size": (3, 21), "align_corners": True}, "fp32"),
        ({"mode": "bicubic", "scale_factor": (0.37, 1.7)}, "fp32"),
        ({"mode": "bicubic", "scale_factor": (0.5, 1.02)}, "fp32"),
        ({"mode": "bilinear", "scale_factor": (1.0, 1.0)}, "fp32"),
        ({"mode": "bilinear", "size": (5, 30)}, "fp16"),
    ],
    ids=["bicubic", "aligned corners", "factors", "a factor that keeps the width", "nothing to do", "halves"],
)
def test_antialiased_resizing_to_a_fixed_size_is_in_the_engine(tmp_path: Path, how: Any, precision: str) -> None:
    model, x = Resized(**how), _picture(9, 14)
    options = {"precision": precision, "require_full_coverage": True}
    built = build_here(model, (x,), folder=tmp_path, dynamic=("x.0=1:1:4",), **options)
    assert_right(built, model, (x,), other_args=[(_picture(9, 14, 3),)])


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_antialiased_resizing_between_any_sizes_is_in_one_engine(tmp_path: Path, mode: str) -> None:
    """Smaller, larger, and the same size."""
    model = Resized(mode=mode)
    dynamic = tuple(f"{name}.{dim}=2:9:40" for name in ("x", "like") for dim in (2, 3))
    call = _picture(9, 14), _picture(20, 6)
    built = build_here(model, call, folder=tmp_path, dynamic=dynamic, require_full_coverage=True)
    others = [((2, 40), (40, 2)), ((33, 7), (7, 33)), ((8, 8), (8, 8)), ((16, 6), (8, 12))]
    assert_right(built, model, call, other_args=[(_picture(*x), _picture(*like)) for x, like in others])


@pytest.mark.parametrize("how", [{"mode": "bicubic", "align_corners": True}, {"mode": "bilinear"}], ids=str)
def test_antialiased_resizing_by_a_factor_of_any_height_is_in_one_engine(tmp_path: Path, how: Any) -> None:
    model, call = Resized(scale_factor=(0.37, 1.0), **how), (_picture(9, 14),)
    built = build_here(model, call, folder=tmp_path, dynamic=("x.2=3:9:40",), require_full_coverage=True)
    assert_right(built, model, call, other_args=[(_picture(height, 14),) for height in (3, 17, 40)])


def test_batch_norm_of_sequences_of_any_number_and_length_is_in_one_engine(tmp_path: Path) -> None:
    def call(batch: int, length: int) -> tuple[Tensor]:
        return (torch.randn(batch, 6, length, generator=torch.Generator().manual_seed(length)),)

    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
    model = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), norm, nn.ReLU()).eval()
    dynamic = ("input.0=1:2:4", "input.2=3:12:40")
    built = build_here(model, call(2, 12), folder=tmp_path, dynamic=dynamic, require_full_coverage=True)
    assert_right(built, model, call(2, 12), other_args=[call(1, 3), call(4, 40)])


class Attention(nn.Module):
    """Attention of four heads to the first few keys, which a mask shuts out for some queries."""

    def __init__(self, keys: int, *, mask: str = "none", heads: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 4 * heads)
        self.keys, self.mask, self.heads = keys, mask, heads

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (4, 4)).transpose(1, 2)
        key = self.key(x[:, : self.keys]).unflatten(-1, (self.heads, 4)).transpose(1, 2)
        seen = (x[:, :, :1] > 0)[:, None].expand(-1, 1, -1, self.keys)
        masks = {"bool": seen, "float": torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))}
        options = {"is_causal": self.mask == "causal", "enable_gqa": self.heads < 4}
        return F.scaled_dot_product_attention(query, key, key.tanh(), masks.get(self.mask), **options)


@pytest.mark.parametrize(
    "model", [Attention(1), *(Attention(1, mask=mask) for mask in ("bool", "float", "causal")), Attention(1, heads=2)],
    ids=["plain", "boolean mask", "float mask", "causal", "shared heads"],
)  # fmt: skip
def test_attention_to_one_key_takes_its_value(tmp_path: Path, model: Attention) -> None:
    """TensorRT-RTX's layer returned other numbers for one key on a GPU; the interpreter of the tests does not."""
    calls = [(torch.randn(batch, length, 16),) for batch, length in ((1, 6), (3, 2), (4, 9))]
    dynamic = ("x.0=1:1:4", "x.1=2:6:9")
    built = build_here(model.eval(), calls[0], folder=tmp_path, dynamic=dynamic, require_full_coverage=True)
    assert not _attention_layers(built)
    assert_right(built, model, calls[0], other_args=calls[1:])


def test_attention_to_two_keys_has_a_layer(tmp_path: Path) -> None:
    assert _attention_layers(build_here(Attention(2).eval(), (torch.randn(1, 6, 16),), folder=tmp_path))


def _attention_layers(built: Any) -> list[str]:
    layers = [layer.kind for network in built.networks.values() for layer in network.layers]
    return [kind for kind in layers if "ATTENTION" in kind]
