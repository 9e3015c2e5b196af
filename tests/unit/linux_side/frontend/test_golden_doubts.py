"""Golden outputs that prove nothing are told to whoever builds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
golden = pytest.importorskip("linux_side.frontend.golden")


def sample(*outputs: object) -> object:
    return golden.GoldenSample([], list(outputs))


def test_an_output_of_zeros_in_every_sample_is_doubted() -> None:
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert golden.golden_doubts([sample(zeros, ones), sample(zeros, ones)])[0].startswith("the golden output 0 is zero")
    assert not golden.golden_doubts([sample(zeros), sample(ones)])
    assert not golden.golden_doubts([sample(None), sample(torch.zeros(0, 3))])
    assert not golden.golden_doubts([])
