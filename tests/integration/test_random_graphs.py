"""Random graphs, randomly partitioned between TensorRT and PyTorch, have right wiring and networks.

``TRTCROSS_GRAPHS=200`` runs that many random graphs; without it a small fixed set runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.integration.harness import assert_right, assert_same_wiring, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx

EXAMPLES = int(os.environ.get("TRTCROSS_GRAPHS", "0"))
ROWS, COLUMNS = 3, 4

# Operators by name: the ATen name by which PyTorch keeps it, the number of arguments, and the function. Every value in
# a graph has the same shape, and no operator commutes with all others, so that a wrong wire gives wrong numbers.
OPERATORS = {
    "add": ("aten.add.Tensor", 2, lambda a, b: a + b),
    "sub": ("aten.sub.Tensor", 2, lambda a, b: a - 2 * b),
    "mul": ("aten.mul.Tensor", 2, lambda a, b: a * b.sigmoid()),
    "relu": ("aten.relu.default", 1, torch.relu),
    "tanh": ("aten.tanh.default", 1, torch.tanh),
    "sigmoid": ("aten.sigmoid.default", 1, torch.sigmoid),
    "roll": ("aten.roll.default", 1, lambda a: torch.roll(a, 1, dims=1)),
    "maximum": ("aten.maximum.default", 2, torch.maximum),
    "where": ("aten.where.self", 3, lambda a, b, c: torch.where(a > 0, b, c)),
    "softmax": ("aten._softmax.default", 1, lambda a: torch.softmax(a, dim=1)),
    "cat": ("aten.cat.default", 2, lambda a, b: torch.cat([a[:, :1], b[:, 1:]], dim=1)),
    "split": ("aten.split.Tensor", 1, lambda a: torch.cat(torch.split(a, 2, dim=1)[::-1], dim=1)),
    "sum": ("aten.sum.dim_IntList", 1, lambda a: a - a.sum(dim=1, keepdim=True)),
    "nextafter": ("aten.nextafter.default", 2, torch.nextafter),  # TensorRT has none: always in PyTorch
    "contiguous": ("aten.clone.default", 1, lambda a: a.contiguous()),
}
STATE_OPERATORS = ("parameter", "buffer", "forgotten")


@dataclass(frozen=True)
class Step:
    """An operator, and the earlier values that it reads."""

    operator: str
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """A random graph: values are the inputs, the state, and each step's result, in this order."""

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    in_torch: tuple[str, ...]
    dynamic: bool


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    inputs = draw(st.integers(1, 3))
    count = inputs + len(STATE_OPERATORS)
    steps = []
    for _ in range(draw(st.integers(3, 14))):
        operator = draw(st.sampled_from(sorted(OPERATORS)))
        arguments = [count - 1 - draw(st.integers(0, 2))]  # most read what was just made, so that chains are long
        arguments += [draw(st.integers(0, count - 1)) for _ in range(OPERATORS[operator][1] - 1)]
        steps.append(Step(operator, tuple(arguments)))
        count += 1
    outputs = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    used = _used(steps, inputs + len(STATE_OPERATORS), (*outputs, count - 1))
    choice = st.sets(st.sampled_from(used), min_size=1, max_size=max(1, len(used) // 2))
    in_torch = draw(choice) - {"contiguous"}  # which is no operator where there is nothing to copy
    names = tuple(OPERATORS[name][0] for name in sorted(in_torch))
    return Recipe(inputs, tuple(steps), (*outputs, count - 1), names, draw(st.booleans()))


def _used(steps: list[Step], first: int, outputs: tuple[int, ...]) -> list[str]:
    """Returns the operators that outputs depend on; an export drops the others."""
    waiting, used = list(outputs), set()
    while waiting:
        index = waiting.pop()
        if index >= first:
            used.add(steps[index - first].operator)
            waiting += steps[index - first].arguments
    return sorted(used)


class Random(nn.Module):
    """A model that computes a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        generator = torch.Generator().manual_seed(0)
        self.parameter = nn.Parameter(torch.randn(1, COLUMNS, generator=generator))
        self.register_buffer("buffer", torch.randn(1, COLUMNS, generator=generator))
        self.register_buffer("forgotten", torch.randn(1, COLUMNS, generator=generator), persistent=False)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = inputs[0].shape[0]
        values = [*inputs, *(getattr(self, name).expand(rows, COLUMNS) for name in STATE_OPERATORS)]
        for step in self.recipe.steps:
            values.append(OPERATORS[step.operator][2](*(values[index] for index in step.arguments)))
        return tuple(values[index] for index in self.recipe.outputs)


def example(recipe: Recipe, rows: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    return tuple(torch.randn(rows, COLUMNS, generator=generator) for _ in range(recipe.inputs))


def check(recipe: Recipe) -> None:
    folder = Path(tempfile.mkdtemp())
    model, args = Random(recipe).eval(), example(recipe, ROWS)
    dynamic = tuple(f"inputs_{index}.0=1:3:5" for index in range(recipe.inputs)) if recipe.dynamic else ()
    try:
        built = build_here(model, args, folder=folder, torch_executed_ops=list(recipe.in_torch), dynamic=dynamic)
        event(f"{len(built.artifact.engines)} engines")
        for rows in (1, ROWS, 5) if recipe.dynamic else (ROWS,):
            values = example(recipe, rows)
            got = assert_same_wiring(built, *values)
            with torch.no_grad():
                want = model(*values)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            assert_right(built, model, values)
    except BuildFailedError as error:
        event("nothing for TensorRT")
        assert "TensorRT can take no operator" in error.problem, error
    finally:
        shutil.rmtree(folder)


@given(recipes())
@settings(
    max_examples=EXAMPLES or 15,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_random_graphs(recipe: Recipe) -> None:
    check(recipe)
