"""An error names the line of the model, not a line of PyTorch."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
source_lines = pytest.importorskip("linux_side.fx.source_line")


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x)


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.inner(x))


def line_of(function: object, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(index for index, line in enumerate(lines) if text in line)


def nodes(program: torch.export.ExportedProgram) -> dict[str, torch.fx.Node]:
    return {str(node.target): node for node in program.graph.nodes if node.op == "call_function"}


def test_the_innermost_line_of_the_models_own_code_is_named_also_after_saving(tmp_path: Path) -> None:
    program = torch.export.export(Outer(), (torch.ones(3),))
    torch.export.save(program, tmp_path / "outer.pt2")
    for found in (nodes(program), nodes(torch.export.load(tmp_path / "outer.pt2"))):
        dropout = found["aten.dropout.default"]
        assert source_lines.source_line(dropout) == f"{__file__}:{line_of(Inner.forward, 'self.drop(x)')}"
        assert source_lines.source_line(found["aten.sin.default"]) == f"{__file__}:{line_of(Outer.forward, 'sin')}"
        assert source_lines.located(dropout).startswith(f"aten.dropout.default, {__file__}:")


def test_a_model_of_pytorchs_own_modules_alone_names_pytorchs_line() -> None:
    program = torch.export.export(torch.nn.Sequential(torch.nn.Dropout(0.5)), (torch.ones(3),))
    assert "dropout.py:" in source_lines.source_line(nodes(program)["aten.dropout.default"])


def test_a_node_without_a_stack_trace_has_no_line() -> None:
    node = nodes(torch.export.export(Outer(), (torch.ones(3),)))["aten.sin.default"]
    del node.meta["stack_trace"]
    assert source_lines.source_line(node) is None
    assert source_lines.located(node) == "aten.sin.default"
