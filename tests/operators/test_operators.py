"""Operators that were wrong, or easily are, are right in their TensorRT network. ``make operators`` tries all."""

from __future__ import annotations

import pytest

from tests.operators.catalogue import ALL
from tests.operators.runner import run_operator

pytestmark = pytest.mark.rtx

TRIALS = 2
FAST = (
    "atan2", "copy_", "div", "div, floor", "expm1", "log1p", "neg", "pow of integers", "remainder of a number",
    "softplus", "where, two numbers", "add", "masked_fill", "to",
    "amax", "argmax", "log_softmax", "log_softmax, far apart", "softmax, masked", "sum", "topk", "var",
    "cat", "expand", "slice", "roll", "no elements",
    "assignment", "assignment in place", "gather", "index", "index_put", "scatter", "scatter_add", "scatter_reduce",
    "select_scatter", "slice_scatter", "slice_scatter of a cache",
    "addmm", "attention", "avg_pool", "convolution", "grid_sample", "interpolate", "matmul", "norms",
)  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_an_operator_is_right(name: str) -> None:
    row = run_operator(name, ALL[name], TRIALS)
    assert row.inputs
    assert not row.wrong and not row.refused, row.problems
