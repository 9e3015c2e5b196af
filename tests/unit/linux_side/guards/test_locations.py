"""A guard names the line of the model that it comes from, or the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from linux_side.frontend.dynamic_shapes import profiles_for, program_guards
from linux_side.frontend.source import load_source
from linux_side.guards.locations import located_guards, location
from linux_side.guards.profiles import require_guards
from linux_side.options import BuildOptions
from toolchain.errors import UsageError

NAME = "tests.unit.linux_side.guards.test_locations"


class Added(nn.Module):
    """Adds a result that has the input's size for multiples of 4 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv1d(2, 4, 4, stride=4)
        self.up = nn.ConvTranspose1d(4, 2, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(torch.relu(self.down(x)))


class Asserted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % 4 == 0
        return x * 2


class Listed(nn.Module):
    """Checks a size in a function, between uses of ``.data`` and of state in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.held = [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        self.held[0].data += 1
        return checked(x.data) + self.held[0]


def checked(x: Tensor) -> Tensor:
    if x.shape[2] % 4 != 0:
        raise ValueError(x.shape)
    return x * 2


def added() -> tuple[nn.Module, tuple[Tensor]]:
    return Added().eval(), (torch.rand(1, 2, 64),)


def asserted() -> tuple[nn.Module, tuple[Tensor]]:
    return Asserted().eval(), (torch.rand(1, 2, 64),)


def listed() -> tuple[nn.Module, tuple[Tensor]]:
    return Listed().eval(), (torch.rand(1, 2, 64),)


@pytest.mark.parametrize(
    ("name", "text"),
    [("added", "return x + self.up"), ("asserted", "assert x.shape[2] %"), ("listed", "if x.shape[2] % 4")],
)
def test_a_size_that_the_model_excludes_is_refused_with_the_models_line(name: str, text: str) -> None:
    options = BuildOptions.model_validate({"dynamic": ["x.2=32:50:128"]})
    program = load_source(f"{NAME}:{name}", options).program
    guards = program_guards(program)
    profiles = profiles_for(program, options.dynamic, guards.sizes)
    with pytest.raises(UsageError, match="OPT is a size that the model does not take") as refused:
        require_guards(guards, profiles, program.range_constraints)
    [line] = [
        number for number, found in enumerate(Path(__file__).read_text().splitlines(), 1) if f"    {text}" in found
    ]
    assert refused.value.where == f"{__file__}:{line}"


def test_only_lines_that_run_within_the_block_are_the_models() -> None:
    """Those of whoever starts the build are not: here the test itself."""

    def model() -> str | None:
        return location(ShapeEnv()._get_sloc())

    with located_guards():
        assert location(ShapeEnv()._get_sloc()) is None
        assert model() == f"{__file__}:{model.__code__.co_firstlineno + 1}"
