"""A network whose tensors differ from the program's is an error of the build, which names the operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from linux_side import upstream
from tests.integration.harness import assert_right, assert_same_wiring, build_here, imported_builder
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx


class Middle(nn.Module):
    """A model in which a sum hides the result of the middle operator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x.relu()).sum(0)


@pytest.fixture
def misconverted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any, Any], Any]], None]:
    """Makes the converter of ``aten.sigmoid`` change its result."""
    imported_builder()
    from torch_tensorrt.dynamo.conversion import impl

    real = impl.activation.sigmoid

    def make(wrong: Callable[[Any, Any], Any]) -> None:
        monkeypatch.setattr(impl.activation, "sigmoid", lambda ctx, *rest: wrong(ctx.net, real(ctx, *rest)))

    return make


def _sliced(network: Any, tensor: Any) -> Any:
    return network.add_slice(tensor, (0, 0), (2, 3), (1, 1)).get_output(0)


def _flattened(network: Any, tensor: Any) -> Any:
    layer = network.add_shuffle(tensor)
    layer.reshape_dims = (1, -1, 3)
    return layer.get_output(0)


def _in_half(network: Any, tensor: Any) -> Any:
    import tensorrt

    return network.add_cast(tensor, tensorrt.DataType.HALF).get_output(0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(_sliced, "FLOAT 2x3"), (_flattened, "FLOAT 1x"), (_in_half, "HALF ")],
    ids=["size", "dimensions", "dtype"],
)
@pytest.mark.parametrize("dynamic", [(), ("x.0=2:4:8",)], ids=["static", "dynamic"])
def test_an_operator_whose_tensor_differs_is_named(
    tmp_path: Path,
    misconverted: Callable[[Callable[[Any, Any], Any]], None],
    wrong: Callable[[Any, Any], Any],
    words: str,
    dynamic: tuple[str, ...],
) -> None:
    misconverted(wrong)
    with pytest.raises(BuildFailedError) as raised:
        build_here(Middle(), (torch.randn(4, 3),), folder=tmp_path, dynamic=dynamic)
    error = raised.value
    assert error.problem.startswith("aten.sigmoid.default would be wrong in TensorRT") and words in error.problem
    assert "test_network_check.py" in str(error.where)
    assert "--torch-executed-op aten.sigmoid.default" in str(error.remedy)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


def test_a_scalar_is_a_scalar_in_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {}
    real = upstream.construct_network

    def construct(interpreter: Any) -> None:
        real(interpreter)
        network = upstream.network_of(interpreter)
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        shapes.update({output.dtype.name: tuple(output.shape) for output in outputs})

    monkeypatch.setattr(upstream, "construct_network", construct)
    built = build_here(Counter(), (torch.randn(2, 3),), folder=tmp_path)
    assert shapes == {"FLOAT": (2, 3), "INT64": ()}
    assert_same_wiring(built, torch.randn(2, 3))


def test_indices_are_of_pytorchs_dtype(tmp_path: Path) -> None:
    class Largest(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values, indices = x.relu().topk(2, -1)
            return values, indices + 1

    built = build_here(Largest(), (torch.randn(4, 6),), folder=tmp_path)
    assert built.original is not None
    assert_right(built, built.original, (torch.rand(4, 6),))
