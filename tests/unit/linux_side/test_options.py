"""A build option is defined once: the library, the command line and the matrix take it from its field."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from linux_side import BuildOptions, build
from linux_side.options import DynamicDimension
from tests.conftest import ROOT
from toolchain.cli.fields import words_of
from toolchain.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="artifacts are built on Linux")

# New options, each of another type, which only this class defines.
MORE_OPTIONS = """
import json, sys
from pathlib import Path
from typing import Annotated
from click.testing import CliRunner
from pydantic import Field
import linux_side.options as options
from toolchain.options import Flag

class More(options.BuildOptions):
    keep_int8: Annotated[list[str], Flag(metavar="PATTERN")] = Field(default_factory=list, description="Keep in int8.")
    share: float | None = Field(default=None, ge=0, description="How much may be off.")
    some_file: Path | None = Field(default=None, description="A file.")
    require_no_torch: bool = Field(default=False, description="Fail if an operator would stay.")

options.BuildOptions = More

import inspect
import linux_side.commands.build as command
from linux_side.driver.building import build
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.spec import parse_spec, spec_schema_text
from toolchain.cli.main import cli

given = []
command.build_artifact = lambda *_, options, **__: given.append(options) or sys.exit(0)
settings = {"keep_int8": ["*.norm"], "share": 0.5, "require_no_torch": True}
spec = {"version": 1, "models": {"m": {"model": "tests.models:tiny", **settings}}, "targets": [{}]}
(cell,) = cells_of(parse_spec(spec, where="spec"))
CliRunner().invoke(cli, ["build", *cell.build_arguments(), "--some-file", "plan.json", "-o", "x.pt2"])
print(json.dumps({
    "help": CliRunner().invoke(cli, ["build", "--help"]).output,
    "schema": spec_schema_text(),
    "signature": list(inspect.signature(build).parameters),
    "cell": cell.options().model_dump(mode="json"),
    "given": given[0].model_dump(mode="json"),
    "crossed": More.model_validate_json(given[0].model_dump_json()) == given[0],
}))
"""


def test_a_new_field_is_in_the_library_the_command_line_and_the_matrix() -> None:
    done = subprocess.run([sys.executable, "-c", MORE_OPTIONS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    for words in ("--keep-int8 PATTERN", "--share FLOAT RANGE", "--some-file PATH", "--require-no-torch"):
        assert words in seen["help"]
    assert {"keep_int8", "share", "some_file", "require_no_torch"} <= set(seen["signature"])
    assert all(f'"{name}"' in seen["schema"] for name in ("keep_int8", "share", "require_no_torch"))
    expected = {"keep_int8": ["*.norm"], "share": 0.5, "require_no_torch": True}
    for options, plan in ((seen["cell"], None), (seen["given"], "plan.json")):
        assert {name: options[name] for name in expected} == expected
        assert options["some_file"] == plan
    assert seen["crossed"]


def test_the_library_takes_the_names_of_the_fields() -> None:
    parameters = inspect.signature(build).parameters
    assert set(BuildOptions.model_fields) <= set(parameters)
    assert (parameters["golden"].default, parameters["gpus"].default) == (1, [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "half"}, ["precision", "'half'", "'fp16'"]),
        ({"golden": -1}, ["golden", "-1", "greater than or equal to 0"]),
        ({"golden": "1"}, ["golden", "'1'", "integer"]),
        ({"gpus": "4090"}, ["'4090'", "compute capability", "--gpu sm_89"]),
        ({"gpus": None}, ["gpus", "None"]),
        ({"target": "amiga"}, ["'amiga'", "windows-x86_64"]),
        ({"backend": "magic"}, ["'magic'", "tensorrt-rtx"]),
        ({"dynamic": "x=1"}, ["'x=1'", "NAME.DIM=MIN:OPT:MAX"]),
        ({"workspace": "1GiBs"}, ["'1GiBs' is not a size", "16GiB"]),
        ({"dynamic": [3]}, ["dynamic", "3"]),
        ({"presicion": "fp16"}, ["'presicion'", "do you mean 'precision'"]),
        ({"options": BuildOptions(), "tf32": False}, ["options=", "tf32"]),
        ({"progress": print, "on_event": print}, ["progress", "on_event"]),
    ],
)
def test_a_wrong_value_is_a_usage_error(settings: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build("tests.models:tiny", tmp_path / "x.pt2", **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


WRONG_DYNAMIC = {
    "": "no '='",
    "x": "no '='",
    "x.0": "no '='",
    "x.0:1:2:4": "no '='",
    "x=1:2:4": "'x' is not an input and a dimension",
    ".0=1:2:4": "'.0' is not an input and a dimension",
    "x[0]=1:2:4": "'x[0]' is not an input and a dimension",
    "x.=1:2:4": "'' is not a dimension",
    "x.a=1:2:4": "'a' is not a dimension",
    "x.-1=1:2:4": "'-1' is not a dimension",
    "x.\u00b2=1:2:4": "'\u00b2' is not a dimension",
    "x.0=": "'' is not three sizes",
    "x.0=4": "'4' is not three sizes",
    "x.0=1:4": "'1:4' is not three sizes",
    "x.0=1:2:4:8": "'1:2:4:8' is not three sizes",
    "x.0=1-4": "'1-4' is not three sizes",
    "x.0=1,2,4": "'1' is not three sizes",
    "x.0=1:2:4,": "'' is not three sizes",
    "x.0==1:2:4": "'=1' is not a size",
    "x.0=a:2:4": "'a' is not a size",
    "x.0=1.5:2:4": "'1.5' is not a size",
    "x.0=-1:2:4": "'-1' is not a size",
    "x.0=1::4": "'' is not a size",
    "x.0=4:2:1": "'4:2:1' is not in order",
    "x.0=1:8:4": "'1:8:4' is not in order",
    "x.0=0:0:0": "no size but 0",
    "x.0=1:2:9999999999999999999": "'9999999999999999999' is not a size",
}


@pytest.mark.parametrize("text", WRONG_DYNAMIC)
def test_the_error_of_a_wrong_dynamic_dimension_names_the_wrong_part(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        DynamicDimension.parse(text)
    assert WRONG_DYNAMIC[text] in caught.value.problem and "such as x.0=1:4:8" in str(caught.value.remedy)


def test_spaces_in_a_dynamic_dimension_are_no_mistake() -> None:
    assert str(DynamicDimension.parse("state.key.1 = 1 : 2 : 4, 8:8:8")) == "state.key.1=1:2:4,8:8:8"


def test_a_list_is_any_iterable_or_its_only_element() -> None:
    dimension = DynamicDimension.parse("x.0=1:2:4")
    for gpus in ("sm_86", ["sm_86"], ("sm_86",), (name for name in ["sm_86"])):
        assert BuildOptions(gpus=gpus).gpus == ["sm_86"]
    for dynamic in ("x.0=1:2:4", dimension, [dimension], ("x.0=1:2:4",)):
        assert BuildOptions(dynamic=dynamic).dynamic == [dimension]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BuildOptions(), []),
        (BuildOptions(tf32=True), ["--tf32"]),
        (BuildOptions(tf32=False, allow_no_engine=True), ["--no-tf32", "--allow-no-engine"]),
        (BuildOptions(require_full_coverage=False, workspace=7), ["--workspace", "7"]),
        (BuildOptions(gpus=["sm_86", "sm_89"]), ["--gpu", "sm_86", "--gpu", "sm_89"]),
        (BuildOptions(dynamic=["x.0=1:1:1,2:8:16"]), ["--dynamic", "x.0=1:1:1,2:8:16"]),  # type: ignore[list-item]
        (BuildOptions(target="linux-x86_64"), ["--target", "linux-x86_64"]),
    ],
)
def test_the_words_of_a_command_line_ask_for_what_was_set(options: BuildOptions, words: list[str]) -> None:
    assert words_of(options) == words
