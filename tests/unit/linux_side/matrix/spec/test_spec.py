"""`matrix.toml`: what it may hold, what is refused, and how cells are named and selected."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.placement import spec_blocker
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.selectors import expand_braces, select
from linux_side.matrix.spec.spec import AXES, BuildSettings, load_spec, parse_spec, spec_schema_text
from linux_side.options import BuildOptions
from tests.conftest import ROOT
from toolchain.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a matrix is built on Linux")

EXAMPLE = ROOT / "examples" / "matrix.toml"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "precisions": ["fp32", "fp16"],
        "models": {"resnet18": {"model": "m:resnet18"}, "vit": {"model": "m:vit", "precisions": ["bf16"]}},
        "targets": [{"version": "1.6"}, {"platform": "linux-x86_64", "gpus": ["sm_86", "sm_89"]}],
        **changes,
    }


def identifiers(**changes: Any) -> list[str]:
    return [cell.id for cell in cells_of(parse_spec(document(**changes), where="spec"))]


def refused(**changes: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        identifiers(**changes)
    return caught.value


def test_identifiers_say_what_a_cell_is() -> None:
    assert identifiers() == [
        "resnet18-fp32-windows_x86_64-rtx1.6",
        "resnet18-fp16-windows_x86_64-rtx1.6",
        "resnet18-fp32-linux_x86_64-rtx-sm_86+sm_89",
        "resnet18-fp16-linux_x86_64-rtx-sm_86+sm_89",
        "vit-bf16-windows_x86_64-rtx1.6",
        "vit-bf16-linux_x86_64-rtx-sm_86+sm_89",
    ]


def test_the_example_has_a_dozen_cells_of_real_models() -> None:
    cells = cells_of(load_spec(EXAMPLE))
    assert len(cells) >= 12
    assert {cell.name.partition("_")[0] for cell in cells} >= {"resnet18", "efficientnet", "minilm"}
    assert {cell.precision for cell in cells} == {"fp32", "fp16", "bf16"}


def test_the_shipped_schema_is_the_models_and_takes_the_example() -> None:
    from jsonschema import Draft202012Validator

    from toolchain.io.toml import parse_toml

    shipped = (ROOT / "linux_side" / "schema" / "matrix-1.json").read_text(encoding="utf-8")
    assert shipped == spec_schema_text()
    validator = Draft202012Validator(json.loads(shipped))
    assert not list(validator.iter_errors(parse_toml(EXAMPLE.read_text(encoding="utf-8"))))
    assert list(validator.iter_errors(document(precison=["fp32"])))


def test_the_page_names_every_build_option() -> None:
    page = (ROOT / "docs" / "build" / "matrix.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| `[build]`"))
    assert all(f"`{name}`" in row for name in BuildSettings.model_fields)
    assert set(BuildSettings.model_fields) | set(AXES) == set(BuildOptions.model_fields)


def test_what_a_spec_leaves_out_is_not_in_a_cells_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build option that is added later does not make finished cells stale."""
    plain, changed = (
        cells_of(parse_spec(document(build=build), where="spec"))[0] for build in ({}, {"allow_no_engine": True})
    )
    assert plain.spec_digest() != changed.spec_digest()
    assert plain.model_copy(update={"base": Path("/elsewhere")}).spec_digest() == plain.spec_digest()
    monkeypatch.setattr("linux_side.matrix.spec.cells._digest", lambda document: document["settings"])
    settings: list[Any] = [plain.spec_digest(), changed.spec_digest()]
    assert settings == [{}, {"allow_no_engine": True}]


def test_models_are_looked_up_in_the_base(tmp_path: Path) -> None:
    models = {"module": {"model": "only_there:model"}, "path": {"model": "./only_there.py:model"}}
    models["folder"] = {"model": "only_there", "task": "fill-mask"}
    models["file"] = {"model": "only_there.pt2"}
    (tmp_path / "only_there.py").write_text("")
    (tmp_path / "only_there").mkdir()
    (tmp_path / "only_there" / "model.safetensors").write_bytes(b"123")
    (tmp_path / "only_there.pt2").write_bytes(b"12345")
    here, there = (cells_of(parse_spec(document(models=models), where="spec"), base) for base in (Path(), tmp_path))
    assert all(spec_blocker(cell) for cell in here)
    assert not any(spec_blocker(cell) for cell in there)
    assert all(
        a.digest() != b.digest() and a.spec_digest() == b.spec_digest() for a, b in zip(here, there, strict=True)
    )
    weights = {cell.name: Memory().weights_of(cell) for cell in there}
    assert weights == {"module": None, "path": None, "folder": 3, "file": 5} and not Memory().weights_of(here[-1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precison": ["fp32"]}, ["'precison'", "'precisions'"]),
        ({"models": {"r": {"model": "m:r", "min-block-size": 2}}}, ["'models.r.min-block-size'", "'min_block_size'"]),
        ({"targets": [{"platfrom": "windows-x86_64"}]}, ["'targets.0.platfrom'", "'platform'"]),
        ({"include": [{"model": "vit", "precision": "fp32", "gpu": ["sm_89"]}]}, ["'include.0.gpu'", "'gpus'"]),
        ({"exclude": [{"select": "*", "because": "no"}]}, ["'exclude.0.because'", "reason"]),
        ({"targets": [{"platform": "amiga"}]}, ["'targets.0.platform'", "windows-x86_64"]),
        ({"targets": [{"gpus": ["4090"]}]}, ["'targets.0.gpus.0'", "compute capability"]),
        ({"precisions": ["fp8"]}, ["'precisions.0'", "bf16"]),
        ({"precisions": []}, ["'precisions'"]),
        ({"models": {}}, ["'models'"]),
        ({"models": {"a-b": {"model": "m:a"}}}, ["a-b", "'-' separates"]),
        ({"models": {"a": {"model": "m:a", "dynamic": ["x=1"]}}}, ["'models.a.dynamic.0'", "NAME.DIM=MIN:OPT:MAX"]),
        ({"build": {"golden": "1"}}, ["'build.golden'", "integer"]),
        ({"build": {"dynamic": [{"inptu": "x"}]}}, ["'build.dynamic.0.inptu'", "input"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_right(changes: dict[str, Any], words: list[str]) -> None:
    error = refused(**changes)
    assert all(word in error.problem for word in words), error.problem


def test_every_mistake_is_named_at_once() -> None:
    problem = refused(precison=[], tagets=[]).problem
    assert "'precison'" in problem
    assert "'targets'" in problem


def test_a_newer_spec_asks_for_a_newer_trtcross() -> None:
    assert "version 2" in refused(version=2).problem


def test_two_cells_of_one_name_are_refused() -> None:
    assert "resnet18-fp32-windows_x86_64-rtx" in refused(targets=[{"verify": "load"}, {}]).problem


def test_an_exclusion_of_nothing_is_a_mistake() -> None:
    error = refused(exclude=[{"select": "vgg*"}])
    assert "'vgg*'" in error.problem
    assert "vit-bf16-windows_x86_64-rtx1.6" in str(error.remedy)


def test_an_included_cell_has_the_options_of_its_model_and_its_own() -> None:
    spec = parse_spec(
        document(
            build={"golden": 3, "workspace": 7},
            models={"r": {"model": "m:r", "workspace": 8, "dynamic": ["x.0=1:2:4"]}},
            include=[{"model": "r", "precision": "bf16", "min_block_size": 5, "tf32": False}],
        ),
        where="spec",
    )
    included = cells_of(spec)[-1]
    assert included.id == "r-bf16-windows_x86_64-rtx"
    line = " ".join(included.build_arguments())
    for words in ("--golden 3", "--workspace 8", "--dynamic x.0=1:2:4", "--min-block-size 5", "--no-tf32"):
        assert words in line


def test_an_inclusion_of_an_unknown_model_names_those_there_are() -> None:
    assert "resnet18, vit" in str(refused(include=[{"model": "vgg", "precision": "fp32"}]).remedy)


def test_every_option_of_a_cell_is_one_of_the_build_verb() -> None:
    from linux_side.commands.build import build

    settings = {
        "tf32": True,
        "dynamic": ["x.0=1:2:4"],
        "golden": 0,
        "min_block_size": 2,
        "torch_executed_ops": ["aten.relu"],
        "require_full_coverage": True,
        "workspace": 1,
    }
    cell = cells_of(parse_spec(document(build=settings), where="spec"))[2]
    context = build.make_context("build", [*cell.build_arguments(), "-o", "x.pt2"])
    got = {name: context.params[name] for name in settings}
    as_words = {"dynamic": ("x.0=1:2:4",), "torch_executed_ops": ("aten.relu",), "workspace": "1"}
    assert got == {**settings, **as_words}
    assert context.params["gpus"] == ("sm_86", "sm_89")


def test_not_toml_says_the_line(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("version = 1\nprecisions = oops\n")
    with pytest.raises(UsageError, match="line 2"):
        load_spec(tmp_path / "m.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_spec(tmp_path / "none.toml")


def test_a_cell_is_stale_when_its_settings_or_its_source_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text("def resnet18(): ...")

    def digest(**changes: Any) -> str:
        return cells_of(parse_spec(document(**changes), where="spec"))[0].digest()

    first = digest()
    assert digest() == first
    assert digest(exclude=[{"select": "vit*"}]) == first
    assert digest(build={"golden": 2}) != first
    (tmp_path / "m.py").write_text("def resnet18(): pass")
    assert digest() != first


@pytest.mark.parametrize(
    ("selector", "patterns"),
    [
        ("a", ["a"]),
        ("a{b,c}d", ["abd", "acd"]),
        ("{a,b}-{1,2}", ["a-1", "a-2", "b-1", "b-2"]),
        ("x{a,b{1,2}}", ["xa", "xb1", "xb2"]),
        ("x{,y}", ["x", "xy"]),
        ("a{b}", ["ab"]),
        ("a{1..3}", ["a1", "a2", "a3"]),
    ],
)
def test_braces(selector: str, patterns: list[str]) -> None:
    assert sorted(expand_braces(selector)) == patterns


@pytest.mark.parametrize("selector", ["{a", "a}", "a}{", "a{b}}", "{a,b}" * 12, "{1..9999}", "{" * 5000 + "}" * 5000])
def test_braces_that_make_no_sense_are_refused(selector: str) -> None:
    with pytest.raises(UsageError):
        expand_braces(selector)


NAMES = ["resnet18-fp16-a", "resnet50-fp16-a", "resnet50-fp32-a", "vit-fp16-b"]


@pytest.mark.parametrize(
    ("only", "skip", "chosen"),
    [
        ([], [], NAMES),
        (["resnet{18,50}-fp16-*"], [], NAMES[:2]),
        (["vit* resnet18*"], [], [NAMES[0], NAMES[3]]),
        (["vit*", "resnet18*"], [], [NAMES[0], NAMES[3]]),
        (["resnet*"], ["*-fp32-*"], NAMES[:2]),
        ([], ["resnet*"], NAMES[3:]),
        (["resnet[15][80]-fp16-a"], [], NAMES[:2]),
    ],
)
def test_selection(only: list[str], skip: list[str], chosen: list[str]) -> None:
    assert select(NAMES, only, skip) == chosen


@pytest.mark.parametrize(("only", "skip"), [(["resent18*"], []), (["vit*", "vgg*"], []), (["vit*"], ["*"]), ([""], [])])
def test_a_selection_of_nothing_lists_what_there_is(only: list[str], skip: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(NAMES, only, skip)
    assert all(name in str(caught.value.remedy) for name in NAMES)


def test_the_nearest_names_are_listed_first() -> None:
    with pytest.raises(UsageError) as caught:
        select(NAMES, ["vit-fp16-c"], [])
    assert str(caught.value.remedy).splitlines()[1].strip() == "vit-fp16-b"
