"""Decompositions agree with PyTorch's own operators in edge cases."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from linux_side.rewrites.distances import cdist  # noqa: E402
from linux_side.rewrites.experts import grouped_product  # noqa: E402
from linux_side.rewrites.floors import floored  # noqa: E402
from linux_side.rewrites.unfolding import unfold  # noqa: E402


@pytest.mark.parametrize("shape", [(7,), (6,), (3, 7), (2, 6, 5), (0, 4)])
@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_windows_along_any_dimension_are_those_of_unfold(shape: tuple[int, ...], step: int) -> None:
    x = torch.randn(shape)
    for dim in range(-len(shape), len(shape)):
        for size in range(shape[dim] + 1):
            for values in (x, x > 0, x.long()):
                want = values.unfold(dim, size, step)
                got = unfold(values, dim, size, step)
                assert got.shape == want.shape and got.dtype == want.dtype and torch.equal(got, want)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("counts", [(5, 4), (0, 4), (5, 0), (30, 30)])
def test_distances_are_those_of_cdist_to_itself_and_of_no_points_too(p: float, counts: tuple[int, int]) -> None:
    x, y = (torch.randn(2, count, 3) for count in counts)
    for other in (y, x):
        want = torch.cdist(x, other, p=p, compute_mode="donot_use_mm_for_euclid_dist")
        torch.testing.assert_close(cdist(x, other, p), want)


@pytest.mark.parametrize("ends", [[2, 2, 5, 7], [0, 0, 0, 0], [7, 7, 7, 7], [0, 3, 3, 3]])
def test_experts_of_no_rows_add_nothing_and_rows_of_no_expert_are_zero(ends: list[int]) -> None:
    rows, weights = torch.randn(7, 3), torch.randn(4, 3, 6)
    rows[5] = math.nan  # of one expert, and of no other
    want, begin = torch.zeros(7, 6), 0
    for weight, end in zip(weights, ends, strict=True):
        want[begin:end], begin = rows[begin:end] @ weight, end
    torch.testing.assert_close(grouped_product(rows, weights, torch.tensor(ends)), want, equal_nan=True)


def test_floats_are_divided_and_rounded_down_as_pytorch_does_it_at_infinities_and_zeros() -> None:
    values = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1.5, -1.5, 7.0])
    x, y = values[:, None].expand(8, 8), values.expand(8, 8)
    torch.testing.assert_close(floored(x, y), x // y, equal_nan=True, rtol=0, atol=0)
    for number in values.tolist():
        torch.testing.assert_close(floored(values, number), values // number, equal_nan=True, rtol=0, atol=0)
