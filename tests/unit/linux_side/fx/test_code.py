"""Generating code only when it is needed, and saving without torch's self-check, give the same as torch does."""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.fx.code import recompiled_on_use
from linux_side.fx.saving import save


def double(gm: torch.fx.GraphModule) -> None:
    """Doubles a graph's result, and recompiles the graph."""
    output = gm.graph.output_node()
    with gm.graph.inserting_before(output):
        doubled = gm.graph.call_function(torch.mul, (output.args[0], 2))
    output.args = (doubled,)
    gm.recompile()


def traced() -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Identity()))


def test_code_is_made_once_and_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    python_code = torch.fx.Graph.python_code
    monkeypatch.setattr(
        torch.fx.Graph, "python_code", lambda graph, *a, **k: made.append(1) or python_code(graph, *a, **k)
    )
    called, looked_at, left, forgotten = traced(), traced(), traced(), traced()
    made.clear()
    with recompiled_on_use():
        for gm in (called, looked_at, left, forgotten):
            for _ in range(3):
                double(gm)
        del gm, forgotten
        gc.collect()
        assert not made
        assert called(torch.ones(1)).item() == 8 and len(made) == 1
        assert "mul" in looked_at.code and len(made) == 2
        assert list(inspect.signature(looked_at.forward).parameters) == ["input"] and len(made) == 2
        double(called)
        assert called(torch.ones(1)).item() == 16 and len(made) == 3
    assert len(made) == 4  # of the one that is left
    assert left(torch.ones(1)).item() == 8 and len(made) == 4
    double(left)
    assert left(torch.ones(1)).item() == 16 and len(made) == 5


def test_after_an_error_torch_is_as_it_was() -> None:
    before, gm = torch.fx.GraphModule.recompile, traced()
    with pytest.raises(KeyError), recompiled_on_use():
        double(gm)
        raise KeyError
    assert torch.fx.GraphModule.recompile is before and gm(torch.ones(1)).item() == 2


class Branches(torch.nn.Module):
    """A model with a graph within its graph, a buffer that changes, and a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.count.add_(1)
        y = torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))
        return {"y": self.linear(y), "count": self.count * 2}


def test_a_program_is_saved_to_the_byte_as_torch_saves_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=8)}}
    program = torch.export.export(Branches(), (torch.randn(3, 4),), dynamic_shapes=dynamic)
    for name, saver in (("torch", torch.export.save), ("ours", save)):
        (tmp_path / name).mkdir()
        saver(program, tmp_path / name / "program.pt2")
    first, second = ((tmp_path / name / "program.pt2").read_bytes() for name in ("torch", "ours"))
    assert first == second
