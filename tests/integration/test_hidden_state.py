"""State that a model reads through a list or an object, such as transformers' caches, is state in the artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import assert_right, build_here

pytestmark = pytest.mark.rtx

HEADS, LENGTH, WIDTH = 2, 8, 4


def _step(seed: int) -> Tensor:
    return torch.randn(1, HEADS, 1, WIDTH, generator=torch.Generator().manual_seed(seed))


class InAList(nn.Module):
    """A model with a registered buffer that forward reads through a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("keys", torch.zeros(1, HEADS, LENGTH, WIDTH))
        self.layers = [self.keys]

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        self.layers[0].index_copy_(2, position, self.linear(x))
        return x @ self.layers[0].mT


class InAnObject(nn.Module):
    """A model with a cache that counts by itself, as transformers' StaticCache; none of its tensors is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        layers = [SimpleNamespace(keys=torch.zeros(1, HEADS, LENGTH, WIDTH), length=torch.tensor(0)) for _ in range(2)]
        self.cache = SimpleNamespace(layers=layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.cache.layers:
            position = torch.arange(x.shape[2]) + layer.length
            layer.length.add_(x.shape[2])
            layer.keys.index_copy_(2, position, self.linear(x))
            seen = torch.arange(LENGTH) <= position[:, None]
            x = torch.softmax((x @ layer.keys.mT).masked_fill(~seen, -1e4), -1) @ layer.keys
        return x


class InADict(nn.Module):
    """A model with running sums in a dict, one of which is a part of a larger buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.sums = {"first": torch.zeros(WIDTH), "second": torch.ones(2, WIDTH)}

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x)
        self.sums["first"].add_(hidden.sum((0, 1, 2)))
        self.sums["second"][1].mul_(2)
        return hidden + self.sums["first"] * self.sums["second"].sum(0)


class Batched(nn.Module):
    """A model with caches whose layout is not TensorRT's: a batch of two, and heads after positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("keys", torch.zeros(2, HEADS, LENGTH, WIDTH))
        self.register_buffer("values", torch.zeros(2, LENGTH, HEADS, WIDTH))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        hidden = self.linear(x)
        self.keys.index_copy_(2, position, hidden)
        self.values.index_copy_(1, position, hidden.transpose(1, 2) * 2)
        return torch.softmax(x @ self.keys.mT, -1) @ self.values.transpose(1, 2)


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    return torch.cat([_step(seed), _step(seed + 100)]), torch.tensor([seed])


MODELS: dict[str, tuple[Callable[[], nn.Module], list[tuple[Any, ...]], dict[str, Any], int]] = {
    "in a list": (InAList, [(_step(i), torch.tensor([i])) for i in range(4)], {}, 1),
    "in a list, fp16": (InAList, [(_step(i), torch.tensor([i])) for i in range(4)], {"precision": "fp16"}, 1),
    "in an object": (InAnObject, [(_step(i),) for i in range(LENGTH)], {}, 2),
    "other layouts": (Batched, [_pair(i) for i in range(4)], {}, 2),
    "in a dict": (InADict, [(_step(i),) for i in range(4)], {}, 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_state_goes_on_from_call_to_call(tmp_path: Path, name: str) -> None:
    make, calls, options, caches = MODELS[name]
    built = build_here(make(), calls[0], folder=tmp_path, **options)
    assert built.original is not None
    assert_right(built, built.original, calls[0], other_args=calls[1:])
    [engine] = built.artifact.engines
    assert len(engine.entry.aliased_io) == caches
    assert {entry.operator for entry in built.artifact.manifest.fallback} <= {"aten.view.default"}
    assert "golden_warnings" not in built.artifact.manifest.settings


def test_a_build_leaves_the_state_of_the_model_as_it_was(tmp_path: Path) -> None:
    model = InAnObject()
    build_here(model, (_step(0),), folder=tmp_path)
    assert [int(layer.length) for layer in model.cache.layers] == [0, 0]
    assert not any(layer.keys.any() for layer in model.cache.layers)
    assert not list(model.buffers())


def test_a_saved_program_that_writes_into_a_constant_is_built(tmp_path: Path) -> None:
    from linux_side.frontend.source import load_source
    from linux_side.options import BuildOptions

    torch.export.save(torch.export.export(InAList().eval(), (_step(0), torch.tensor([0]))), tmp_path / "program.pt2")
    source = load_source(str(tmp_path / "program.pt2"), BuildOptions())
    assert not source.program.graph_signature.inputs_to_lifted_tensor_constants
    functional = source.program.run_decompositions({})
    assert len(functional.graph_signature.buffers_to_mutate) == 1
