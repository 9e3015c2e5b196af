"""Builds share a stage if all options that the stage depends on are equal, and only then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from linux_side.driver.stages import LAST_SHARED, STAGES, parted_after, seen_by, shared_until, stage_key
from linux_side.options import BuildOptions
from tests.unit.linux_side.cache.test_build_cache import CHANGED_OPTIONS

CHANGED = {name: {name: value} for name, value in CHANGED_OPTIONS.items()} | {
    "tolerance": {"precision": "auto", "tolerance": 0.5}
}


@dataclass(frozen=True, eq=False)
class Build:
    model: str
    options: BuildOptions


def build(model: str = "m:a", **options: Any) -> Build:
    return Build(model, BuildOptions(**options))


def test_each_option_belongs_to_one_stage() -> None:
    """A new option must be assigned to a stage; until then no stage depends on it."""
    named = [name for names in STAGES.values() for name in names]
    assert sorted(named) == sorted(BuildOptions.model_fields)


@pytest.mark.parametrize("name", sorted(BuildOptions.model_fields))
def test_a_stage_sees_an_option_from_its_own_on_and_not_before(name: str) -> None:
    options, stages = BuildOptions(**CHANGED[name]), list(STAGES)
    owner = next(stage for stage, names in STAGES.items() if name in names)
    for index, stage in enumerate(stages):
        seen = getattr(seen_by(stage, options), name) == getattr(options, name)
        assert seen is (index >= stages.index(owner))
        before = BuildOptions(precision="auto") if name == "tolerance" else BuildOptions()
        assert (stage_key(stage, "m:a", options) == stage_key(stage, "m:a", before)) is not seen or stage == "write"


def test_every_stage_of_tensorrt_sees_the_platform() -> None:
    options = BuildOptions(backend="tensorrt", target="linux-x86_64")
    assert all(seen_by(stage, options).target == options.target for stage in STAGES)


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        ({}, "convert"),
        ({"target": "linux-x86_64"}, "convert"),
        ({"gpus": ["sm_89"]}, "lower"),
        ({"workspace": 2**30}, "lower"),
        ({"torch_executed_ops": ["aten.relu"]}, "precision"),
        ({"precision": "fp16"}, "export"),
        ({"dynamic": ["x.0=1:2:4"]}, "import"),
        ({"golden": 0}, "import"),
        ({"model": "m:b"}, "import"),
        ({"backend": "tensorrt"}, None),
    ],
)
def test_what_differs_says_how_far_work_is_shared(other: dict[str, Any], shared: str | None) -> None:
    assert shared_until([build(), build(**other)]) == shared


def test_builds_are_parted_by_the_next_stage_and_none_shares_its_artifact() -> None:
    one, two, three = build(), build(precision="fp16"), build(target="linux-x86_64")
    assert parted_after("import", [one, two, three]) == [[one, two, three]]
    assert parted_after("export", [one, two, three]) == [[one, three], [two]]
    assert parted_after(LAST_SHARED, [one, three]) == [[one], [three]]
