"""What a cast model must not round: tables that it reads in fp32 alone, and complex buffers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_right, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx


class Rotary(nn.Module):
    """Positions times frequencies, as rotary embeddings compute them."""

    def __init__(self, read: Callable[[Tensor], Tensor], persistent: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.read = read
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, 8, 2).float() / 8), persistent=persistent)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions[:, None].float() * self.read(self.inv_freq)
        return self.linear(x) * torch.cos(angles).repeat(1, 2)


READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda table: table.float(),
    "viewed and cast": lambda table: table[None].float(),
    "viewed twice and cast": lambda table: table.view(2, 2)[None].reshape(1, 4).to(torch.float32),
    "read twice": lambda table: (table.float() + table[None].float()) / 2,
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "not persistent"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_table_that_is_read_in_fp32_keeps_its_digits(
    tmp_path: Path, reading: str, persistent: bool, precision: str
) -> None:
    torch.manual_seed(0)
    model = Rotary(READINGS[reading], persistent).eval()
    args = (torch.randn(4096, 8), torch.arange(4096))
    built = build_here(model, args, folder=tmp_path, precision=precision)
    assert built.original is not None
    assert_right(built, built.original, args)


def test_a_table_that_is_read_in_halves_too_is_rounded_like_the_rest(tmp_path: Path) -> None:
    model = Rotary(lambda table: table.float() + table, persistent=True).eval()
    built = build_here(model, (torch.randn(16, 8), torch.arange(16)), folder=tmp_path, precision="fp16")
    assert built.program.state_dict["inv_freq"].dtype is torch.float16


@pytest.mark.parametrize("kind", ["buffer", "parameter"])
def test_a_complex_tensor_of_a_cast_model_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            phases = torch.polar(torch.ones(4, 4), torch.rand(4, 4))
            if kind == "buffer":
                self.register_buffer("phases", phases)
            else:
                self.phases = nn.Parameter(phases)

        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(torch.view_as_complex(x) * self.phases)

    with pytest.raises(BuildFailedError, match="phases is complex, and casting the model to fp16"):
        build_here(Model(), (torch.randn(4, 4, 2),), folder=tmp_path, precision="fp16")
