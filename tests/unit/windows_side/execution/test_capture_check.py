"""Whether a graph's outputs could be those of other kernels for the same operators, or nothing computed them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from toolchain.errors import IncompatibleError
from windows_side.execution.capture_check import agree, check_capture

NAN, INF = float("nan"), float("inf")
X = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(100)


@pytest.mark.parametrize(
    "got, want",
    [
        (X.half().float(), X),
        (X.bfloat16(), (X * 1.01).bfloat16()),
        ((X * 1e30), (X * 1.01e30)),
        (torch.zeros(5), torch.zeros(5)),
        (torch.tensor([NAN, INF, -INF, 1.0]), torch.tensor([NAN, INF, -INF, 1.001])),
        (torch.complex(X, -X).conj(), torch.complex(X, X * 1.01)),
        (NUMBERS, torch.where(NUMBERS == 7, 8, NUMBERS)),
        (NUMBERS > 50, NUMBERS > 52),
        (torch.ones(()), torch.ones(())),
    ],
)
def test_results_of_other_kernels_agree(got: torch.Tensor, want: torch.Tensor) -> None:
    assert agree(got, want) and agree(want, got)


@pytest.mark.parametrize(
    "got, want",
    [
        (torch.zeros_like(X), X),
        (X.roll(1), X),
        (torch.full_like(X, NAN), X),
        (torch.full_like(X, INF), X),
        (X * 1.2, X),
        (torch.zeros_like(X).half(), X.half()),
        (torch.tensor([NAN, INF]), torch.tensor([INF, NAN])),
        (torch.complex(X, X), torch.complex(X, -X)),
        (NUMBERS.roll(1), NUMBERS),
        (NUMBERS > 50, NUMBERS <= 50),
        (torch.tensor(3), torch.tensor(4)),
    ],
)
def test_garbage_does_not_agree(got: torch.Tensor, want: torch.Tensor) -> None:
    assert not agree(got, want)


DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64,
    torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_output_of_any_dtype_that_is_not_written_is_refused(dtype: torch.dtype, draws: bool) -> None:
    want = torch.ones(3, 4).to(dtype)
    other, out = torch.zeros(2), want.clone()  # what an earlier call left is no proof
    with pytest.raises(IncompatibleError, match="output 2 is not written"):
        check_capture(lambda: other.fill_(5), [None, other, out], [None, other + 5, want], kept=[], draws=draws)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_output_of_any_dtype_that_is_written_is_accepted(dtype: torch.dtype) -> None:
    want = torch.ones(3, 4).to(dtype)
    out = torch.zeros_like(want)
    check_capture(lambda: out.copy_(want), [out], [want], kept=[], draws=False)
    assert torch.equal(out, want)


def test_numbers_that_are_drawn_need_not_agree() -> None:
    out = torch.zeros(50)
    check_capture(lambda: out.normal_(), [out], [torch.randn(50)], kept=[], draws=True)
    with pytest.raises(IncompatibleError, match="output 0 differs"):
        check_capture(lambda: out.normal_(), [out], [torch.randn(50)], kept=[], draws=False)


def test_an_output_that_is_an_input_or_a_weight_is_left_alone() -> None:
    weight, before = torch.arange(6.0), torch.arange(6.0)
    check_capture(lambda: None, [weight[2:], weight], [weight[2:], weight], kept=[weight], draws=False)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("value", [NAN, -1])
def test_outputs_that_are_nan_or_minus_one_are_accepted(value: float) -> None:
    want = torch.full((3, 4), value)
    for dtype in (torch.float32, torch.int64):
        if dtype.is_floating_point or value == -1:
            out = torch.zeros(3, 4, dtype=dtype)
            check_capture(lambda out=out: out.fill_(value), [out], [want.to(dtype)], kept=[], draws=False)
