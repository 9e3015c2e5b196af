"""A precision plan as a file, and the options of precision that contradict each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from linux_side import BuildOptions
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.spec import parse_spec
from linux_side.precision_plan import PrecisionPlan, plan_path
from toolchain.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="artifacts are built on Linux")

PLAN = {"version": 1, "precision": "bf16", "keep_fp32": ["encoder.*", "aten.gelu"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.precision.json"
    path.write_text(json.dumps(PLAN))
    return path


def test_a_plan_is_read_from_its_file_and_crosses_processes(path: Path) -> None:
    options = BuildOptions(precision_plan=str(path))
    assert options.halves == "bf16" and options.precision_plan == PrecisionPlan(**PLAN)
    assert BuildOptions.model_validate_json(options.model_dump_json()) == options
    assert BuildOptions(precision_plan=str(options.precision_plan)) == options


def test_a_plan_that_is_written_is_read_again(tmp_path: Path) -> None:
    plan, place = PrecisionPlan(**PLAN, tolerance=1e-2, reached=2e-3), plan_path(tmp_path / "net.v2.pt2")
    plan.write(place)
    assert place.name == "net.v2.precision.json" and PrecisionPlan.parse(str(place)) == plan
    assert len(place.read_text().splitlines()) > 5, "people read it"


@pytest.mark.parametrize(
    "text, word",
    [
        ("{", "JSON"),
        ('{"version": 2, "precision": "fp16", "keep_fp32": []}', "version"),
        ('{"version": 1, "precision": "int8", "keep_fp32": []}', "precision"),
        ('{"version": 1, "precision": "fp16"}', "keep_fp32"),
        ('{"version": 1, "precision": "fp16", "keep_fp32": [3]}', "keep_fp32.0"),
        ('{"version": 1, "precision": "fp16", "keep_fp32": [], "keep": 1}', "keep"),
    ],
)
def test_what_is_no_plan_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"not a precision plan: .*{word}") as raised:
        BuildOptions(precision_plan=str(path))
    assert str(path) in str(raised.value) and '"keep_fp32"' in str(raised.value)
    with pytest.raises(UsageError, match="not a precision plan"):
        BuildOptions(precision_plan=str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"tolerance": 1e-3}, "no --precision auto"),
        ({"tolerance": 1e-3, "precision": "fp16"}, "no --precision auto"),
        ({"precision": "auto", "tolerance": 0.0}, "tolerance cannot be"),
        ({"precision": "auto", "tolerance": float("inf")}, "tolerance cannot be"),
        ({"precision": "auto", "precision_plan": PLAN}, "the plan is for bf16, not for auto"),
        ({"precision": "fp16", "precision_plan": PLAN}, "the plan is for bf16, not for fp16"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BuildOptions(**options)


def test_one_table_of_a_matrix_serves_several_precisions(path: Path) -> None:
    build = {"tolerance": 1e-3, "keep_fp32": ["head"], "precision_plan": str(path)}
    spec = {
        "version": 1,
        "precisions": ["fp32", "fp16", "bf16", "auto"],
        "build": build,
        "models": {"m": {"model": "tests.models:tiny"}},
        "targets": [{}],
    }
    cells = {cell.precision: cell for cell in cells_of(parse_spec(spec, where="spec"))}
    options = {name: cell.options() for name, cell in cells.items()}
    assert {name: bool(found.precision_plan) for name, found in options.items()} == {
        **dict.fromkeys(("fp32", "fp16", "auto"), False), "bf16": True
    }  # fmt: skip
    assert options["auto"].tolerance == 1e-3 and options["fp16"].tolerance is None
    assert options["fp32"].keep_fp32 == [] and options["fp16"].keep_fp32 == ["head"]
    words = cells["bf16"].build_arguments()
    assert PrecisionPlan.parse(words[words.index("--precision-plan") + 1]) == PrecisionPlan(**PLAN)
