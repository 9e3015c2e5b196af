"""Errors about what cannot be built name it, and state what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.graphs import X
from tests.integration.harness import build_here
from toolchain.errors import BuildFailedError, UsageError

pytestmark = pytest.mark.rtx


@torch.library.custom_op("trtcross_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twice(x.relu())


class Quantized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        whole = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
        return torch.dequantize(whole).relu()


class FakeQuantized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127).relu()


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.relu() + 1


class NothingForTensorRT(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nextafter(x, x)


class Text(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return x.relu(), "done"


class TupleKeys(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {("a", 1): x.relu()}


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda v: v.relu(), lambda v: v - 1, (x,))


class Relu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + 1


REFUSED: dict[str, tuple[nn.Module, Tensor, str]] = {
    "custom operator": (Custom(), X, r"custom operator trtcross_tests\.twice"),
    "quantized": (Quantized(), X, "the model is quantized: it calls aten.quantize_per_tensor"),
    "fake-quantized": (FakeQuantized(), X, "the model is quantized: it calls aten.fake_quantize"),
    "identity": (Identity(), X, "TensorRT can take no operator of this model"),
    "constant": (Constant(), X, "TensorRT can take no operator of this model"),
    "nothing for TensorRT": (NothingForTensorRT(), X, "TensorRT can take no operator of this model"),
    "string output": (Text(), X, "returns the string 'done'"),
    "key that JSON lacks": (TupleKeys(), X, r"key \('a', 1\), which cannot be written to a file"),
    "branch on data": (Branch(), X, "branches or loops on data: it calls cond"),
    "no elements": (Relu(), torch.zeros(0, 4), "TensorRT cannot take tensors with no elements"),
    "complex128": (Relu(), X.to(torch.complex128), "complex128"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(tmp_path: Path, name: str) -> None:
    module, example, words = REFUSED[name]
    with pytest.raises(BuildFailedError, match=words) as caught:
        build_here(module, (example,), folder=tmp_path, golden=0)
    assert caught.value.remedy
    assert not list(tmp_path.rglob("*.pt2"))


def test_a_custom_operator_may_stay_in_pytorch_when_asked(tmp_path: Path) -> None:
    built = build_here(Custom(), (X,), folder=tmp_path, torch_executed_ops=["trtcross_tests.twice.default"])
    assert [f.operator for f in built.artifact.manifest.fallback] == ["trtcross_tests.twice.default"]
    assert torch.equal(built.run(X), X.relu() * 2)


@pytest.mark.parametrize(
    ("dynamic", "words"),
    [
        ("y.0=1:2:4", "the model has no input 'y'"),
        ("x.3=1:2:4", "has 2 dimensions"),
        ("x.0=4:5:6", "the example's size 2 is outside 4 to 6"),
    ],
)
def test_wrong_dynamic_dimensions(tmp_path: Path, dynamic: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_here(Relu(), (X,), folder=tmp_path, dynamic=(dynamic,))
