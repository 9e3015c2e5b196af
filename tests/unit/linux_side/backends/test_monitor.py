"""TensorRT's nested phases become one number of steps."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from linux_side.backends.monitor import Steps


def test_steps_of_phases_within_phases_add_up_to_one_and_never_fall() -> None:
    seen: list[tuple[str, float]] = []
    steps = Steps(lambda name, reached: seen.append((name, reached)))
    steps.start("all", None, 4)
    steps.start("first", "all", 2)
    steps.step("first", 0)
    steps.step("first", 1)
    steps.finish("first")
    steps.step("all", 0)
    steps.step("all", 2)  # a phase may skip some
    steps.start("last", "all", 1)
    steps.step("last", 0)
    steps.step("unknown", 7)
    steps.step("all", 1)
    steps.step("all", 3)
    assert seen == [
        ("first", 0.125), ("first", 0.25), ("all", 0.25), ("all", 0.75), ("last", 1.0), ("unknown", 1.0), ("all", 1.0),
        ("all", 1.0),
    ]  # fmt: skip
