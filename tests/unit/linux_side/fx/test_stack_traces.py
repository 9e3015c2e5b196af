"""Stack traces that are read from Python's own frames equal those that torch records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.frontend.source import export_program
from linux_side.fx import stack_traces
from linux_side.fx.source_line import source_line
from linux_side.fx.stack_traces import quick_stack_traces


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2 + self.more(x)
        return (y.sin() +
                y.cos())  # fmt: skip

    def more(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softmax(x, -1)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), Scaled()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.second(self.first(x))
        return x


def traces(program: torch.export.ExportedProgram) -> dict[str, str | None]:
    return {node.name: node.meta.get("stack_trace") for node in program.graph.nodes}


def test_each_node_has_the_stack_trace_that_torch_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, args = Model(), (torch.ones(2, 4),)
    theirs = traces(torch.export.export(model, args))
    asked: list[int] = []
    extract = stack_traces._Stack.extract
    monkeypatch.setattr(stack_traces._Stack, "extract", lambda: asked.append(1) or extract())
    with quick_stack_traces():
        assert traces(torch.export.export(model, args)) == theirs
    assert len(asked) >= sum(map(bool, theirs.values())) > 8
    assert traces(torch.export.export(model, args)) == theirs


def test_equal_code_of_two_files_keeps_its_own_file(tmp_path: Path) -> None:
    """Python's code objects compare equal if only their files differ, as those of a copied ``blocks.py``."""
    text = "import torch\nclass Block(torch.nn.Module):\n    def forward(self, x):\n        return x.sin()\n"
    blocks = []
    for name in ("first.py", "second.py"):
        scope: dict[str, Any] = {}
        exec(compile(text, str(tmp_path / name), "exec"), scope)
        blocks.append(scope["Block"]())
    model, args = torch.nn.Sequential(*blocks), (torch.ones(2),)
    with quick_stack_traces():
        found = traces(torch.export.export(model, args))
    assert found == traces(torch.export.export(model, args))
    assert "second.py" in (found["sin_1"] or "")


def test_an_exported_program_tells_the_models_lines() -> None:
    program = export_program("model", Model(), (torch.ones(2, 4),), {})
    lines = {str(node.target): source_line(node) for node in program.graph.nodes if node.op == "call_function"}
    first = Scaled.forward.__code__.co_firstlineno
    assert lines["aten.mul.Tensor"] == f"{__file__}:{first + 1}"
    assert lines["aten.cos.default"] == f"{__file__}:{first + 3}"
