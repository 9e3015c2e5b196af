"""The error about a model whose graph depends on data names the model's line, and what to write there instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
pytest.importorskip("linux_side.frontend.source", exc_type=ImportError)

from linux_side.frontend.source import export_program
from toolchain.errors import BuildFailedError

HERE = Path(__file__)
X = torch.rand(3, 3)


class Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # here: Branch
            return x + 1
        return x - 1


class Chosen(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x  # here: Chosen


class Halved(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.abs().max() > 1:  # here: Halved
            x = x / 2
        return x


class Stepped(torch.nn.Module):
    """A model whose line is in a function that the model calls."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(steps(x))


def steps(x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.max())):  # here: Stepped
        x = x + 1
    return x


class Checked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.min() >= 0  # here: Checked
        return x + 1


class Cut(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = int(x[0, 0])  # here: Cut
        return x[:count].sum()


class Counted(torch.nn.Module):
    """A model whose number of rows depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x[x > 0]
        if rows.shape[0] > 2:  # here: Counted
            return rows + 1
        return rows


def failure(model: type[torch.nn.Module]) -> BuildFailedError:
    with pytest.raises(BuildFailedError) as caught:
        export_program("model", model().eval(), (X,), {})
    return caught.value


@pytest.mark.parametrize(
    ("model", "instead"),
    [
        (Branch, "choose with torch.where"),
        (Chosen, "choose with torch.where"),
        (Counted, "choose with torch.where"),
        (Halved, "a fixed number of steps"),
        (Stepped, "loop a fixed number of times"),
        (Checked, "leave the check out of forward"),
        (Cut, "a size must come from an input's shape"),
    ],
)
def test_the_line_and_what_to_write_there(model: type[torch.nn.Module], instead: str) -> None:
    error = failure(model)
    lines = HERE.read_text(encoding="utf-8").splitlines()
    number, code = next((i, line) for i, line in enumerate(lines, 1) if line.endswith(f"# here: {model.__name__}"))
    assert error.problem.startswith("what the model does depends on the data in a tensor")
    assert f"{HERE.name}:{number}: {code.strip()}" in error.problem
    assert error.where == f"model, {HERE}:{number}"
    assert instead in (error.remedy or "") and error.exit_code == 7


class Numpy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + 1)  # here: Numpy


def test_any_other_failure_has_the_models_line_too() -> None:
    error = failure(Numpy)
    assert "numpy() is not supported" in error.problem and (error.where or "").startswith(f"model, {HERE}:")
