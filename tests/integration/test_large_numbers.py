"""Numbers that int32 or fp32 cannot hold are right, in an engine or in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linux_side import upstream
from tests.integration.harness import Built, assert_same_wiring, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx

I = torch.arange(4)  # noqa: E741
X = torch.arange(8.0).reshape(2, 4) - 3
INT64 = torch.iinfo(torch.int64)


class Model(nn.Module):
    """A model that applies a function to its buffers and its input, and a relu to floats, which is always an engine."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("large", torch.tensor([2**40, 5, 2**62 + 1, -(2**35)]))
        self.register_buffer("huge", torch.tensor(1e300, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x), x.float().relu() * 3


LARGE: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "added": (lambda s, x: x + 2**40, I),
    "added to int32": (lambda s, x: x.int() + 2**40, I),
    "subtracted from": (lambda s, x: 2**40 - x, I),
    "multiplied": (lambda s, x: x * 2**40, I),
    "just beyond": (lambda s, x: x + 2**31, I),
    "just below": (lambda s, x: x - 2**31 - 1, I),
    "alpha": (lambda s, x: torch.add(x, x, alpha=2**40), I),
    "divided": (lambda s, x: (x * 3) // 2**40, I),
    "hashed": (lambda s, x: torch.arange(40.0)[(x * 2654435761) % 37], I),
    "compared": (lambda s, x: x > 2**40, I),
    "clamped": (lambda s, x: x.clamp(max=2**40), I),
    "full": (lambda s, x: torch.full((4,), 2**33) + x, I),
    "full in the graph": (lambda s, x: torch.full((x.shape[0],), 2**33) - x, I),
    "arange": (lambda s, x: torch.arange(2**40, 2**40 + 4) + x, I),
    "masked with the greatest": (lambda s, x: x.masked_fill(x > 2, INT64.max).amin(), I),
    "masked with the least": (lambda s, x: torch.where(x > 2, INT64.min, x).amax(), I),
    "chosen later": (lambda s, x: torch.where(x > 2, x * 2**33, x), I),
    "buffer": (lambda s, x: torch.where(x > 1, s.large, x), I),
    "indexed": (lambda s, x: s.large[x], I),
    "sorted": (lambda s, x: torch.sort(x * 2**40, descending=True)[0], I),
    "reduced": (lambda s, x: (x.sum() * 2**31, (x - 2**40).amax()), I),
    "double": (lambda s, x: (x.double() * 1e300) / 1e299, X),
    "double buffer": (lambda s, x: x.double() * s.huge, X),
    "beside floats": (lambda s, x: x * 2**40 + 2**40, X),
    "beyond fp32": (lambda s, x: x * 1e39, X),
}


def build_case(name: str, folder: Path) -> tuple[Built, nn.Module, Tensor]:
    function, x = LARGE[name]
    model = Model(function).eval()
    return build_here(model, (x,), folder=folder), model, x


@pytest.mark.parametrize("name", LARGE)
def test_large_numbers_come_out_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks are checked too: no constant and no cast may lose anything."""
    networks = record_networks(monkeypatch)
    built, model, x = build_case(name, tmp_path)
    got, want = assert_same_wiring(built, x), model(x)
    flat = zip(*(torch.utils._pytree.tree_leaves(value) for value in (got, want)), strict=True)
    assert all(torch.equal(a, b) or torch.allclose(a, b, rtol=1e-6, equal_nan=True) for a, b in flat)
    for network in networks:
        assert not narrowing_casts(network)


def record_networks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    networks = []
    real = upstream.construct_network

    def construct(interpreter: Any) -> None:
        real(interpreter)
        networks.append(upstream.network_of(interpreter))

    monkeypatch.setattr(upstream, "construct_network", construct)
    return networks


def narrowing_casts(network: Any) -> list[str]:
    """Returns the layers of a network that cast int64 to int32 where the model does not."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return [
        layer.name
        for layer in layers
        if layer.type.name == "CAST"
        and "_to_copy" not in layer.name
        and layer.get_input(0).dtype.name == "INT64"
        and layer.get_output(0).dtype.name == "INT32"
    ]


def test_values_of_an_input_are_chosen_among_in_int64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No constant shows that an input will hold time stamps."""
    networks = record_networks(monkeypatch)

    class Choose(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.where(x > y, x, y)

    built = build_here(Choose(), (I, I + 2**40), folder=tmp_path)
    assert built.artifact.manifest.fallback == []
    assert not narrowing_casts(networks[0])
    names = [layer.type.name for layer in map(networks[0].get_layer, range(networks[0].num_layers))]
    assert "SELECT" in names


@pytest.mark.parametrize("name", ["beside floats", "beyond fp32"])
def test_numbers_beside_floats_stay_in_the_engine(name: str, tmp_path: Path) -> None:
    built, _, _ = build_case(name, tmp_path)
    assert built.artifact.manifest.fallback == []


def test_only_what_is_large_stays_in_pytorch(tmp_path: Path) -> None:
    built, _, _ = build_case("hashed", tmp_path)
    assert {entry.operator for entry in built.artifact.manifest.fallback} == {
        "aten.mul.Tensor",
        "aten.remainder.Scalar",
    }


def test_a_model_that_is_nothing_else_is_refused_with_the_number(tmp_path: Path) -> None:
    class Add(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 2**40

    with pytest.raises(BuildFailedError, match=r"aten.add.Tensor: it computes with 1099511627776"):
        build_here(Add(), (I,), folder=tmp_path)
