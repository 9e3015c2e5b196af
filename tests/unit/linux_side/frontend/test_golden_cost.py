"""The memory and the work of a run at other sizes, estimated from the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
costs = pytest.importorskip("linux_side.frontend.golden_cost")

from torch.export import Dim  # noqa: E402 - after torch was looked for

from tests.integration.cases import Case  # noqa: E402

KIB = 1024


def cost(function: Any, rows: int, **parts: Any) -> Any:
    """Returns the estimated cost of a call on rows of 256 numbers, 1 KiB each."""
    model, x = Case(function, **parts).eval(), torch.ones(6, 256)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: Dim.DYNAMIC(min=2, max=4096)},))
    symbol = next(symbol for symbol in program.range_constraints if str(symbol).startswith("s"))
    return costs.cost_of(program, {symbol: rows})


def chain(_: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(10):
        x = x.relu()
    return x


def test_what_is_used_no_more_takes_no_memory() -> None:
    assert cost(chain, 100).memory == 300 * KIB


def test_what_is_used_at_the_end_is_held_until_then() -> None:
    assert cost(lambda s, x: sum([x + n for n in range(1, 5)], x), 100).memory >= 500 * KIB


def test_views_and_changes_in_place_take_none_and_hold_what_they_are_of() -> None:
    assert cost(lambda s, x: (x + 1).flatten().reshape(256, -1).mul_(2).t() + 1, 100).memory == 300 * KIB
    assert cost(lambda s, x: (x + 1).t().relu(), 100).memory == 300 * KIB


def test_weights_are_there_already() -> None:
    assert cost(lambda s, x: s.linear(x), 4, linear=torch.nn.Linear(256, 256)).memory == 8 * KIB


@pytest.mark.parametrize(
    ("function", "parts", "growth"),
    [
        (chain, {}, 10),
        (lambda s, x: s.linear(x), {"linear": torch.nn.Linear(256, 512)}, 10),
        (lambda s, x: x @ x.T, {}, 100),
        (lambda s, x: torch.nn.functional.scaled_dot_product_attention(x, x, x), {}, 100),
        (lambda s, x: s.convolution(x[:, None]), {"convolution": torch.nn.Conv1d(1, 4, 3)}, 10),
    ],
)
def test_work_grows_as_the_operators_do(function: Any, parts: dict[str, Any], growth: int) -> None:
    few, many = cost(function, 100, **parts), cost(function, 1000, **parts)
    assert many.work == pytest.approx(growth * few.work, rel=0.05)


def test_a_convolution_counts_its_kernel() -> None:
    plain = cost(chain, 100).work
    assert cost(lambda s, x: s.c(x[:, None]), 100, c=torch.nn.Conv1d(1, 10, 3, padding=1)).work == pytest.approx(
        3 * plain, rel=0.1
    )


def test_sizes_that_only_the_data_tells_are_not_counted() -> None:
    assert cost(lambda s, x: x[x > 0] * 2, 100).memory >= 100 * KIB
