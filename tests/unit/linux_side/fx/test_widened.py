"""A program of halves in fp32: the same numbers as the model in fp32, and never all of its weights in fp32 at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
widened = pytest.importorskip("linux_side.fx.widened")

from tests.conftest import ROOT  # noqa: E402 - after torch was looked for
from tests.integration.cases import Case  # noqa: E402
from tests.integration.cases import halves as cases  # noqa: E402

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def run(model: torch.nn.Module, args: tuple[Any, ...]) -> torch.Tensor:
    program = torch.export.export(model, args).module(check_guards=False)
    with torch.no_grad(), widened.Widened():
        result: torch.Tensor = program(*args)
    return result


def in_fp32(model: torch.nn.Module, args: tuple[Any, ...]) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.float()(*(arg.float() if arg.is_floating_point() else arg for arg in args))
    return result


@HALVES
@pytest.mark.parametrize("name", ["decoder", "convolutions"])
def test_it_is_what_the_model_gives_in_fp32(name: str, dtype: torch.dtype) -> None:
    model, args = getattr(cases, name)(dtype)
    got, own = run(model, args), model(*args)
    want = in_fp32(model, args)
    assert got.dtype is torch.float32
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(own.float(), want, rtol=1e-5, atol=1e-6)


@HALVES
def test_state_in_halves_is_written_to_through_views(dtype: torch.dtype) -> None:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        s.state[1:3] = x * 3
        s.state[0] += s.state[1] + 1
        return s.state * 2

    model = Case(forward, state=torch.zeros(4, 8, dtype=dtype))
    x = torch.arange(16, dtype=dtype).reshape(2, 8)
    program = torch.export.export(model, (x,)).module(check_guards=False)
    with torch.no_grad(), widened.Widened():
        first, second = program(x), program(x)
    want = torch.cat([x[:1] * 3 + 1, x * 3, torch.zeros(1, 8)]).float()
    assert torch.equal(first, want * 2)
    assert torch.equal(second[0], want[0] * 4) and torch.equal(second[1:], first[1:])
    assert program.state.dtype is dtype and torch.equal(program.state.float(), second / 2)


def test_a_conversion_to_halves_gives_memory_of_its_own() -> None:
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        wide = x.float() * 2
        half = wide.to(torch.bfloat16)
        half += 1
        return half + wide

    x = torch.arange(4, dtype=torch.bfloat16)
    assert torch.equal(run(Case(forward), (x,)), 4 * x.float() + 1)


@HALVES
def test_a_conversion_like_another_tensor_gives_memory_of_its_own(dtype: torch.dtype) -> None:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        wide = x.float() * 2
        half = wide.type_as(x)
        half += 1
        copy = s.state.type_as(wide)
        copy += 1
        return half + wide + copy + s.state

    x = torch.arange(4, dtype=dtype)
    model = Case(forward, state=torch.zeros(4, dtype=dtype))
    assert torch.equal(run(model, (x,)), 4 * x.float() + 2)
    assert not model.state.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_a_conversion_to_the_same_dtype_gives_the_state_itself(dtype: torch.dtype) -> None:
    """A cache that is converted to the dtype of what is written into it (``cache.to(x.dtype)``)."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        s.state.to(dtype)[0] = x[0].to(dtype)
        s.state[1:].to(dtype).add_(1)
        s.state[1:].type_as(s.state).add_(1)
        return x + s.state

    x = torch.tensor([3.0, 4.0], dtype=torch.float16)
    program = torch.export.export(Case(forward, state=torch.zeros(2, dtype=dtype)), (x,)).module(check_guards=False)
    with torch.no_grad(), widened.Widened():
        program(x)
        result = program(x)
    assert program.state.tolist() == [3, 4] and program.state.dtype is dtype
    assert result.tolist() == [6, 8]


_MEMORY = """
import pathlib, sys, torch
from torch.overrides import TorchFunctionMode
from linux_side.driver.allocator import give_freed_memory_back
from linux_side.fx.spill import Spill, tensors_of
from linux_side.fx.widened import Widened
from tests.unit.linux_side.fx.test_spill import anonymous

class Watching(TorchFunctionMode):
    "Is called with what was converted, while that is alive."
    peak = 0
    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.peak = max(self.peak, anonymous())
        return result

give_freed_memory_back()
layers = [torch.nn.Linear(1024, 1024, bias=False) for _ in range(16)]  # 2 MiB each in halves
x = torch.randn(1, 1024).bfloat16()
program = torch.export.export(torch.nn.Sequential(*layers).bfloat16(), (x,))
del layers
Spill(pathlib.Path(sys.argv[1])).move(tensors_of(program))
run = program.module(check_guards=False)
with torch.no_grad():
    run(x)
    before = anonymous()
    with Watching() as watching, Widened():
        run(x)
print((watching.peak - before) >> 20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports anonymous memory")
def test_one_weight_is_in_fp32_at_a_time(tmp_path: Path) -> None:
    """64 MiB of weights in fp32, 4 MiB each; those of halves are mapped."""
    command = [sys.executable, "-c", _MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert 3 <= int(done.stdout) < 12
