"""The tolerance of golden outputs: by precision, and none for whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
golden_entry = pytest.importorskip("linux_side.frontend.golden_entry")

from linux_side.frontend.golden_doubts import GoldenSample  # noqa: E402 - after torch was looked for
from linux_side.frontend.source import export_source  # noqa: E402
from linux_side.options import BuildOptions  # noqa: E402


def test_the_tolerance_is_that_of_the_precision_that_an_artifact_computes_in() -> None:
    model = torch.nn.Linear(8, 8).eval()
    exact = export_source("test", model, (torch.randn(2, 8),), {}, BuildOptions())
    assert exact.golden.precision is None
    assert golden_entry.tolerance_for(BuildOptions(), exact.program) == golden_entry.tolerance_of("fp32")
    assert golden_entry.tolerance_for(BuildOptions(precision="fp16"), exact.program) == golden_entry.tolerance_of(
        "fp16"
    )
    source = export_source("test", model.bfloat16(), (torch.randn(2, 8).bfloat16(),), {}, BuildOptions())
    assert golden_entry.tolerance_for(BuildOptions(), source.program) == golden_entry.tolerance_of("bf16")


def test_whole_numbers_and_booleans_must_be_equal() -> None:
    tolerance = golden_entry.tolerance_of("bf16")
    outputs = [torch.ones(2), torch.ones(2, dtype=torch.complex64), torch.ones(2).int(), torch.ones(2).bool(), None]
    described = golden_entry.describe_golden([GoldenSample([], outputs)], tolerance).tolerance
    assert described["float32"] == described["complex64"] == tolerance
    assert described["int32"].relative_l2 == described["bool"].max_relative == 0
