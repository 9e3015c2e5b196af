"""Small models that were once wrong on a GPU are built here, and agree with PyTorch in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from linux_side import build
from tests.gpu.conftest import close, copied, tensors
from toolchain.cli.main import cli
from windows_side import LoadedModel, load

INT64 = torch.iinfo(torch.int64)


def loaded(module: nn.Module, args: tuple[Any, ...], folder: Path, **options: Any) -> LoadedModel:
    program = torch.export.export(module.eval(), args)
    build(program, folder / "a.pt2", target="linux-x86_64", cache=False, tf32=False, **options).close()
    return load(folder / "a.pt2", allow_unlisted_gpu=True)


def on_gpu(value: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, Tensor.cuda, value)


class Counter(nn.Module):
    """A model whose state has no dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.tokens.add_(x.shape[0])
        self.mean.mul_(0.5).add_(x.mean())
        return x * self.mean + self.tokens, x.sum() + 1


def test_scalar_state_goes_on_from_call_to_call(tmp_path: Path) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model, original = loaded(Counter(), (x,), tmp_path), Counter().cuda()
    for step in range(4):
        got, want = model(on_gpu(x) + step), original(on_gpu(x) + step)
        assert got[1].shape == ()
        close(tensors(got), tensors(want), tolerance=1e-5)


def test_scalar_state_is_verified(tmp_path: Path) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    loaded(Counter(), (x,), tmp_path, golden=3)
    cli(["verify", str(tmp_path / "a.pt2"), "--allow-unlisted-gpu"], standalone_mode=False)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


I = torch.arange(8)  # noqa: E741
LARGE: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "int64 chosen in an engine": (lambda x, y: torch.where(x > y, x, y), (I * 2**33, I.flip(0) * 2**34)),
    "int64 chosen by a mask": (lambda x, y: torch.where(x % 2 == 0, x, y) + 1, (I, I + 2**40)),
    "added": (lambda x: (x + 2**40, x.float().relu() * 2), (I,)),
    "masked": (lambda x: (x.masked_fill(x > 3, INT64.max).amin(), x.float() * 2), (I,)),
    "hashed": (lambda x: torch.arange(40.0, device=x.device)[(x * 2654435761) % 37], (I,)),
    "doubles": (lambda x: ((x.double() * 1e300) / 1e299, x * 2), (I.float(),)),
    "scalars": (lambda x: (x.sum() * 2, x.max() - 1, torch.stack([x.mean() + 1, x.min() * 3])), (I.float(),)),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_numbers_and_scalars(name: str, tmp_path: Path) -> None:
    function, args = LARGE[name]
    model = loaded(Function(function), args, tmp_path)
    got, want = tensors(model(*on_gpu(args))), tensors(function(*on_gpu(copied(args))))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert torch.equal(a, b) if not b.is_floating_point() else torch.allclose(a, b, rtol=1e-5)


def test_a_model_output_is_one_without_transformers(tmp_path: Path) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    x = torch.randn(2, 4)

    def forward(x: Tensor) -> Any:
        return outputs.MaskedLMOutput(logits=x.relu() * 2, hidden_states=(x + 1, x - 1))

    y = loaded(Function(forward), (x,), tmp_path)(on_gpu(x))
    assert type(y).__module__.startswith("windows_side")
    close([y.logits, y["hidden_states"][1]], [x.cuda().relu() * 2, x.cuda() - 1], tolerance=1e-5)
    assert y.loss is None


def test_a_program_that_was_exported_on_a_gpu_builds(tmp_path: Path) -> None:
    """The build runs in a process that sees no GPU; other tests craft such a program on a CPU."""
    x = torch.randn(2, 8, device="cuda")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).cuda().eval()
    path = tmp_path / "cuda.pt2"
    torch.export.save(torch.export.export(module, (x,)), path)
    build(str(path), tmp_path / "a.pt2", target="linux-x86_64", cache=False, tf32=False).close()
    close([load(tmp_path / "a.pt2", allow_unlisted_gpu=True)(x)], [module(x)])
