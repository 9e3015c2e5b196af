"""The search for what must stay in fp32: as few parts as the tolerance lets, within its passes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from linux_side.precision import search  # noqa: E402
from linux_side.precision.rules import default_rules  # noqa: E402
from linux_side.precision.search import choose_precision, groups_of  # noqa: E402
from tests.unit.linux_side.precision.models import exported  # noqa: E402


class Cancels(nn.Module):
    """A difference of nearly equal large numbers, which halves lose."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 3 + 2000) - (x * 3 + 1999.9)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.fragile, self.last = nn.Linear(8, 8), Cancels(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) * self.fragile(x))


def searched(tolerance: float, **options: float) -> search.Choice:
    torch.manual_seed(0)
    model, x = Parts().eval(), torch.randn(4, 8)
    with torch.no_grad():
        want = model(x)
    program = exported(model, x)
    return choose_precision(program, default_rules(), torch.float16, [([x], [want])], tolerance, **options)


def test_only_the_part_that_costs_most_stays_in_fp32() -> None:
    choice = searched(1e-2)
    assert choice.keep == ["fragile"] and choice.error <= 1e-2
    assert choice.passes <= search.MOST_PASSES


def test_where_the_rules_are_enough_nothing_more_stays() -> None:
    assert searched(10.0).keep == []


def test_without_time_everything_stays_in_fp32() -> None:
    choice = searched(1e-2, seconds=-1.0)
    assert choice.keep == ["*"] and not choice.assignment.half


def test_the_passes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PASSES", 3)
    choice = searched(1e-9)
    assert choice.passes == 3 and choice.error > 1e-9


def test_groups_are_modules_and_the_models_own_operators() -> None:
    model = Parts().eval()
    groups = groups_of(exported(model, torch.randn(4, 8)).graph)
    assert {"first", "fragile", "last", "aten.mul"} == set(groups)
