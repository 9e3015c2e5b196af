"""The search for parts that must stay in fp32: as few as the tolerance allows, within the number of passes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from linux_side.precision import search  # noqa: E402
from linux_side.precision.rules import default_rules  # noqa: E402
from linux_side.precision.search import Found, Setting, choose_precision, groups_of  # noqa: E402
from tests.unit.linux_side.precision.models import Parts, exported  # noqa: E402


def setting(*, tf32: bool = False) -> Setting:
    torch.manual_seed(0)
    model, x = Parts().eval(), torch.randn(4, 8)
    with torch.no_grad():
        want = model(x)
    return Setting(exported(model, x), default_rules(), torch.float16, [([x], [want])], tf32=tf32)


def searched(tolerance: float, *, tf32: bool = False, **options: float) -> Found:
    return choose_precision(setting(tf32=tf32), tolerance, **options)


def test_only_the_part_that_costs_most_stays_in_fp32() -> None:
    found = searched(1e-2)
    assert found.best.keep == ["fragile"] and found.best.error <= 1e-2
    assert found.ended and found.passes <= search.MOST_PASSES


def test_where_the_rules_are_enough_nothing_more_stays() -> None:
    assert searched(10.0).best.keep == []


def test_without_time_everything_stays_in_fp32() -> None:
    found = searched(1e-2, seconds=-1.0)
    assert found.best.keep == ["*"] and not found.best.assignment.half
    assert found.best.error == 0.0 and not found.ended and found.nearest is None


def test_the_passes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PASSES", 3)
    found = searched(1e-9)
    assert found.passes == 3 and not found.ended
    assert found.best.keep == ["*"] and found.nearest and found.nearest.error > 1e-9


def test_tf32_is_counted_where_products_stay_in_fp32() -> None:
    assert searched(1e-9).best.error == 0.0
    assert 1e-5 < searched(1e-9, tf32=True).best.error < 1e-3


def test_groups_are_modules_and_the_models_own_operators() -> None:
    groups = groups_of(exported(Parts().eval(), torch.randn(4, 8)).graph)
    assert {("first",), ("fragile",), ("last",), ("aten.mul",)} == set(groups)


def test_many_modules_side_by_side_are_a_few_groups_and_none_is_left_out() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(50)))
    groups = groups_of(exported(model, torch.randn(2, 4)).graph)
    assert len(groups) <= 16
    assert [name for group in groups for name in group] == [str(number) for number in range(50)]
