"""A call reads the state and inputs that it changes as they were before, with both readers of a graph."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from torch.export.graph_signature import TensorArgument

from windows_side.execution.flat_program import flat_program
from windows_side.loader.graph_reader import read_graph

Called = Callable[[Any], Sequence[Any]]


class State(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", torch.zeros(4))


class DelayLine(State):
    def forward(self, x: Any) -> Any:
        y = x + 2 * self.a + 3 * self.b
        self.b.copy_(self.a)
        self.a.copy_(x)
        return y


class DelayLineByViews(State):
    def forward(self, x: Any) -> Any:
        y = x + 2 * self.a + 3 * self.b
        self.b.copy_(self.a.unsqueeze(0).squeeze(0))
        self.a.copy_(x)
        return y


class ExchangedState(State):
    def forward(self, x: Any) -> Any:
        y = x + 2 * self.a + 3 * self.b
        old = self.a.clone()
        self.a.copy_(self.b + 1)
        self.b.copy_(old)
        return y


class OldValue(State):
    def forward(self, x: Any) -> Any:
        old = self.a.clone()
        self.a.copy_(x)
        return old


class ExchangedInput(State):
    def forward(self, x: Any) -> Any:
        y = x + 2 * self.a
        old = x.clone()
        x.copy_(self.a)
        self.a.copy_(old)
        return y


def _by_us(program: Any) -> Called:
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("models/model.json")]
        read = read_graph(json.loads(archive.read(name)), [], torch.device("cpu"), where="test")
    module: Called = torch.fx.GraphModule(dict(program.state_dict), read.graph)
    return module


def _by_torch(program: Any) -> Called:
    module: Called = flat_program(program).module
    return module


def _without_clones(program: Any) -> Any:
    """Removes clones, as a compiler does: they change nothing in a functional graph."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.clone.default:
            for spec in program.graph_signature.output_specs:
                if spec.arg.name == node.name:
                    spec.arg = TensorArgument(node.args[0].name)
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    return program


@pytest.mark.parametrize("read", [_by_us, _by_torch])
@pytest.mark.parametrize("model", [DelayLine, DelayLineByViews, ExchangedState, OldValue, ExchangedInput])
def test_calls_read_what_earlier_calls_have_left(model: type[State], read: Callable[[Any], Called]) -> None:
    program = torch.export.export(model(), (torch.zeros(4),)).run_decompositions()
    called, original = read(_without_clones(program)), model()
    for value in (1.0, 10.0, 100.0, 1000.0):
        x, same = torch.full((4,), value), torch.full((4,), value)
        got, want = called(x)[0], original(same)
        assert torch.equal(got, want) and torch.equal(x, same)


@pytest.mark.parametrize("read", [_by_us, _by_torch])
def test_an_input_that_is_changed_and_returned_is_the_callers_own(read: Callable[[Any], Called]) -> None:
    class Doubled(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, x: Any) -> Any:
            return x.mul_(2)

    x = torch.ones(4)
    [got] = read(torch.export.export(Doubled(), (torch.zeros(4),)).run_decompositions())(x)
    assert got is x and (x == 2).all()


@pytest.mark.parametrize("read", [_by_us, _by_torch])
def test_nothing_is_copied_that_shares_no_memory(read: Callable[[Any], Called]) -> None:
    class Counter(State):
        def forward(self, x: Any) -> Any:
            self.a.add_(x)
            self.b.mul_(2)
            return self.a * self.b

    graph = read(torch.export.export(Counter(), (torch.zeros(4),)).run_decompositions()).graph
    assert not [node for node in graph.nodes if node.target is torch.ops.aten.clone.default]
