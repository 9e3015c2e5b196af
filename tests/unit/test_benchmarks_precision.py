"""The table of ``benchmarks/gpu/precision.py``: its figures, and which goals it reports as missed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks.gpu.precision import report


def row(variant: str, error: float, milliseconds: float) -> dict[str, Any]:
    return {
        "model": "net", "variant": variant, "error": error, "one_at_a_time": milliseconds,
        "back_to_back": milliseconds, "engine_bytes": 2**20, "first_call": 1.0, "predicted": 9e-4,
    }  # fmt: skip


def lines(*rows: dict[str, Any], cpu_error: float = 0.0) -> list[str]:
    peers = [
        {"model": "net", "precision": "fp32", "error": 1e-4, "cpu_error": cpu_error},
        {"model": "net", "precision": "fp16", "error": 1e-3, "one_at_a_time": 3.0},
    ]
    return list(report(rows, peers))


def test_the_table_sets_errors_beside_eager_and_latency_beside_the_whole_cast() -> None:
    found = lines(row("fp16", 2e-3, 1.02), row("cast", 1e-3, 1.0))
    assert (
        "| net | fp16 | 2.0e-03 | 9.0e-04 | 1.0e-03 | 2.00 | 1.020 | 1.02 | 1.020 | 1.02 | 3.000 | 1.0 | 1.0 |" in found
    )
    assert not any("missed" in line for line in found)


def test_what_misses_a_goal_is_named() -> None:
    found = lines(row("fp16", 5e-3, 1.06), row("cast", 1e-3, 1.0), {"model": "net", "variant": "bf16", "failed": "why"})
    assert [line for line in found if "missed" in line] == [
        "- **missed**: net, fp16: 5.0 times eager's error",
        "- **missed**: net, fp16: 1.06 of the whole cast's latency",
        "- **missed**: net, bf16: why",
    ]


def test_an_error_that_is_no_number_misses_the_goal() -> None:
    assert any("times eager's error" in line for line in lines(row("fp16", float("nan"), 1.0)))


def test_a_peer_that_is_another_model_is_named() -> None:
    assert lines(row("fp16", 1e-3, 1.0), cpu_error=0.5)[-1].startswith("- eager made another model of net")
