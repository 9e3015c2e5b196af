"""Models that use ``.data`` of a tensor in forward: weights that are merged at each call, activations, state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_right, build_here
from toolchain.errors import BuildFailedError, UsageError

pytestmark = pytest.mark.rtx

Forward = Callable[["Branches", Tensor], Tensor]


class Branches(nn.Module):
    """Two branches, a convolution that a forward may give their weights, and a buffer for a count."""

    calls: Tensor

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow, self.merged = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.register_buffer("calls", torch.zeros(1))
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def _merges(model: Branches, x: Tensor) -> Tensor:
    weight = model.wide.weight.data.clone().detach() + nn.functional.pad(model.narrow.weight.data, (1, 1, 1, 1))
    model.merged.weight.data = weight.contiguous()
    model.merged.bias.data = model.wide.bias.data + model.narrow.bias.data
    return nn.functional.conv2d(x, model.merged.weight, model.merged.bias, padding=1).relu()


def _reads(model: Branches, x: Tensor) -> Tensor:
    return model.wide(x) / model.wide.weight.data.abs().amax() + x.data.mean()


def _clamps(model: Branches, x: Tensor) -> Tensor:
    y: Tensor = model.wide(x)
    y.data = y.data.clamp(0, 1)
    return y * 2


def _counts(model: Branches, x: Tensor) -> Tensor:
    model.calls.data += 1
    return model.wide(x) * model.calls


def _counts_after_use(model: Branches, x: Tensor) -> Tensor:
    y: Tensor = model.wide(x) + model.calls
    model.calls.data.mul_(2).add_(1)
    model.calls.data -= 3
    return y


def _assigns_a_count(model: Branches, x: Tensor) -> Tensor:
    model.calls.data = model.calls.data + 1
    return model.wide(x) * model.calls


def _halves(model: Branches, x: Tensor) -> Tensor:
    model.wide.weight.data = model.wide.weight.data * 0.5
    return model.wide(x).relu()


def _halves_after_use(model: Branches, x: Tensor) -> Tensor:
    y: Tensor = model.wide(x)
    model.wide.weight.data = torch.zeros_like(model.wide.weight)
    return y.relu()


def _picture(batch: int, size: int) -> tuple[Tensor]:
    return (torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size)),)


@pytest.mark.parametrize("forward", [_merges, _reads, _clamps, _counts, _counts_after_use])
def test_a_model_that_uses_data_in_forward_is_right_at_each_call(tmp_path: Path, forward: Forward) -> None:
    model = Branches(forward).requires_grad_(False)
    built = build_here(model, _picture(1, 8), folder=tmp_path, dynamic=("x.0=1:1:4", "x.2=4:8:9", "x.3=4:8:9"))
    assert len(built.artifact.engines) == 1 and not built.artifact.manifest.fallback
    assert_right(built, Branches(forward), _picture(1, 8), other_args=[_picture(4, 9), _picture(1, 8), _picture(2, 4)])


@pytest.mark.parametrize(
    ("forward", "name", "remedy"),
    [
        (_halves, "wide.weight", "make it a buffer (register_buffer) and write into it with copy_()"),
        (_halves_after_use, "wide.weight", "make it a buffer (register_buffer) and write into it with copy_()"),
        (_assigns_a_count, "calls", "write into it with copy_()"),
    ],
)
def test_a_weight_or_state_that_is_assigned_anew_at_each_call_is_refused_by_its_name(
    tmp_path: Path, forward: Forward, name: str, remedy: str
) -> None:
    with pytest.raises(BuildFailedError, match=rf"{name}\.data in forward .* no such state") as error:
        build_here(Branches(forward).requires_grad_(False), _picture(1, 8), folder=tmp_path)
    assert error.value.where == name and error.value.remedy == remedy


@pytest.mark.parametrize("forward", [_merges, _clamps, _counts])
def test_a_size_that_such_a_model_excludes_is_refused(tmp_path: Path, forward: Forward) -> None:
    """The model is exported in strict mode too then, and what that gives has no values."""

    def in_fours(model: Branches, x: Tensor) -> Tensor:
        y = forward(model, x)
        if x.shape[2] % 4 != 0:
            raise ValueError(x.shape)
        return y

    with pytest.raises(UsageError, match="MAX is a size that the model does not take"):
        build_here(Branches(in_fours).requires_grad_(False), _picture(1, 8), folder=tmp_path, dynamic=("x.2=4:8:10",))
