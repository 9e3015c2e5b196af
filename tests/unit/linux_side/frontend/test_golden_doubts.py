"""A build warns about golden outputs that prove nothing, or that are not the original model's."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
doubts = pytest.importorskip("linux_side.frontend.golden_doubts")

ONES, RAMP = torch.ones(2, 3), torch.arange(6.0).reshape(2, 3)


def said(*samples: tuple[object, ...]) -> list[str]:
    return doubts.doubts_of_values([doubts.GoldenSample([], list(outputs)) for outputs in samples])


def test_an_output_of_zeros_in_every_sample_is_doubted() -> None:
    zeros = torch.zeros(2, 3)
    assert said((zeros, RAMP), (zeros, RAMP))[0].startswith("the golden output 0 is zero")
    assert not said((zeros,), (ONES,))
    assert not said((None,)) and not said((torch.zeros(0, 3),)) and not said()
    assert said((torch.tensor(0),)) and not said((torch.tensor(2.5),))


def test_one_number_everywhere_is_doubted_in_each_dtype() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64):
        (doubt,) = said((RAMP, ONES.to(dtype)))
        assert doubt.startswith("the golden output 1 is 1"), doubt


def test_what_is_not_finite_is_counted() -> None:
    values = torch.tensor([math.nan, 1, math.inf, -math.inf, math.nan, 2])
    assert said((values,), (torch.ones(6),)) == [
        "the golden output 0 is NaN in 2 of its 12 values",
        "the golden output 0 is infinite in 2 of its 12 values",
    ]


def test_outputs_that_other_inputs_hardly_change_are_doubted() -> None:
    labels = torch.arange(1000)
    outputs = [RAMP, RAMP, RAMP, None, labels]
    others = [RAMP.clone(), RAMP + 1e-4, RAMP * 2, None, labels.index_fill(0, torch.tensor([3]), 7)]
    assert [text[:43] for text in doubts.doubts_of_dependence(outputs, others, 5e-3)] == [
        "the golden output 0 does not depend on the ",
        "the golden output 1 hardly depends on the i",
    ]


def test_a_difference_from_eager_is_more_than_rounding() -> None:
    noise = RAMP * (1 + 1e-6)
    assert not doubts.doubts_of_eager([([RAMP, None], [noise, None])])
    assert not doubts.doubts_of_eager([([RAMP.half()], [(RAMP * 1.005).half()])])
    runs = [([RAMP, RAMP], [RAMP, RAMP * 1.1]), ([RAMP, RAMP], [RAMP, RAMP * 2])]
    (doubt,) = doubts.doubts_of_eager(runs)
    assert doubt.startswith("the golden output 1") and doubt.endswith("relative difference 5e-01")
    assert doubts.doubts_of_eager([([RAMP], [RAMP, RAMP])]) and doubts.doubts_of_eager([([RAMP], [RAMP[:1]])])


def test_whole_numbers_must_be_equal() -> None:
    labels = torch.arange(1000)
    assert doubts.are_different([labels], [labels.index_fill(0, torch.tensor([3]), 7)])
    assert not doubts.are_different([labels], [labels.clone()])


@pytest.mark.parametrize(
    ("got", "want", "wanted"),
    [
        ([math.nan, 1], [math.nan, 1], 0.0),
        ([math.inf, 1], [math.inf, 1], 0.0),
        ([math.inf, 1], [-math.inf, 1], math.inf),
        ([1, 1], [math.nan, 1], math.inf),
        ([math.nan, 3, 4], [math.nan, 3, 2], 2 / math.hypot(3, 2)),
        ([1.0, 0.0], [0.0, 0.0], math.inf),
    ],
)
def test_difference(got: list[float], want: list[float], wanted: float) -> None:
    found = doubts.difference(torch.tensor(got), torch.tensor(want))
    assert found == wanted or found == pytest.approx(wanted)
