"""A plan states where each cell is built, which cells are not built, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from linux_side.cache.key import file_key
from linux_side.cache.store import FOLDER_VARIABLE, LIMIT_VARIABLE, BuildCache
from linux_side.matrix.planning.hosts import Host
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.plan import Action, Plan, Planned, make_plan
from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.cells import Cell, cells_of
from linux_side.matrix.spec.spec import parse_spec
from linux_side.options import BuildOptions, DynamicDimension
from tests.unit.matrix_runs import finish
from toolchain.cli.main import cli
from toolchain.targets import Backend

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a matrix is built on Linux")

RTX = {Backend.TENSORRT_RTX: "1.6.1.120"}
HERE = Host("here", "linux-x86_64", backends=RTX, memory=16 * 2**30)
WINDOWS_BOX = {"name": "box", "platform": "windows-x86_64", "gpus": ["sm_89"], "runs_on": ["self-hosted", "gpu"]}


def plan(tmp_path: Path, *hosts: Host, memory: Memory | None = None, again: bool = False, **spec: Any) -> Plan:
    whole = {"version": 1, "models": {"tiny": {"model": "tests.models:tiny"}}, "targets": [{}], **spec}
    return make_plan(
        parse_spec(whole, where="spec"), hosts or (HERE,), RunFolder(tmp_path), memory or Memory(), again=again
    )


def only_cell(tmp_path: Path, *hosts: Host, **spec: Any) -> Planned:
    (item,) = plan(tmp_path, *hosts, **spec).cells
    return item


def test_a_cell_is_built_here(tmp_path: Path) -> None:
    item = only_cell(tmp_path)
    assert (item.action, item.host, item.level) == (Action.BUILD, HERE, "structure")


GPU = Host("gpu", "linux-x86_64", gpus=("sm_80",), accelerators=("A100",), backends={Backend.TENSORRT: "11.1.0"})


@pytest.mark.parametrize(
    ("host", "target", "words"),
    [
        (HERE, {"backend": "tensorrt"}, "torch-tensorrt and tensorrt, not installed"),
        (HERE, {"version": "1.7"}, "tensorrt-rtx 1.7 is wanted, 1.6.1.120 installed"),
        (HERE, {"version": "1"}, None),
        (HERE, {"version": "1.6.1.12"}, "1.6.1.12 is wanted"),
        (HERE, {"accelerator": "L4"}, "accelerator L4; there: no GPU"),
        (HERE, {"gpus": ["sm_90"]}, "no engine for sm_90"),
        (HERE, {"gpus": ["sm_75", "sm_89"]}, "Turing"),
        (GPU, {"backend": "tensorrt", "gpus": ["sm_89"]}, "needs a GPU of sm_89; there: sm_80"),
        (GPU, {"backend": "tensorrt", "gpus": ["sm_80"]}, None),
        (GPU, {"backend": "tensorrt", "gpus": ["sm_80", "sm_89"]}, "one GPU generation"),
        (GPU, {"backend": "tensorrt", "accelerator": "A100"}, None),
        (Host("w", "windows-x86_64", backends=RTX), {}, "built on linux-x86_64"),
        (Host("none", "linux-x86_64", backends={Backend.TENSORRT: "11.1"}), {"backend": "tensorrt"}, "there is none"),
    ],
)
def test_a_cell_that_no_machine_can_build_is_impossible(
    tmp_path: Path, host: Host, target: dict[str, Any], words: str | None
) -> None:
    item = only_cell(tmp_path, host, targets=[target])
    assert item.action is (Action.IMPOSSIBLE if words else Action.BUILD)
    assert not words or words in str(item.reason)


def test_a_build_that_no_machine_has_the_memory_for(tmp_path: Path) -> None:
    item = only_cell(tmp_path, memory=Memory(weights={"tests.models:tiny": 10 * 2**30}))
    assert item.action is Action.IMPOSSIBLE
    assert "needs about 19.09 GiB of memory; there: 16.00 GiB" in str(item.reason)


@pytest.mark.parametrize(
    ("model", "words"),
    [("no/such.pt2", "no file no/such.pt2"), ("no_such_module.models:x", "no module no_such_module")],
)
def test_a_model_that_is_not_there(tmp_path: Path, model: str, words: str) -> None:
    item = only_cell(tmp_path, models={"m": {"model": model}})
    assert item.action is Action.IMPOSSIBLE
    assert words in str(item.reason)


def test_an_exclusion_says_why(tmp_path: Path) -> None:
    item = only_cell(tmp_path, exclude=[{"select": "tiny-*", "reason": "too slow in fp32"}])
    assert (item.action, item.reason) == (Action.EXCLUDED, "too slow in fp32")


def test_a_finished_cell_is_not_done_again_unless_something_changed(tmp_path: Path) -> None:
    cell = only_cell(tmp_path).cell
    folder = RunFolder(tmp_path)
    finish(folder, cell)
    assert only_cell(tmp_path).action is Action.FINISHED
    assert only_cell(tmp_path, again=True).action is Action.BUILD
    assert only_cell(tmp_path, build={"golden": 2}).action is Action.BUILD
    folder.artifact(cell.id).write_bytes(b"damaged!")
    assert only_cell(tmp_path).action is Action.BUILD


def test_a_cell_that_failed_or_has_a_damaged_record_is_done_again(tmp_path: Path) -> None:
    cell = only_cell(tmp_path).cell
    folder = RunFolder(tmp_path)
    finish(folder, cell, state="failed")
    assert only_cell(tmp_path).action is Action.BUILD
    finish(folder, cell)
    path = folder.record_path(cell.id)
    path.write_text(path.read_text()[:100])
    assert only_cell(tmp_path).action is Action.BUILD


def test_the_plan_names_the_cells_that_the_build_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"a program")
    models = {"program": {"model": str(path)}, "factory": {"model": "tests.models:tiny"}}
    program, factory = plan(tmp_path, models=models).cells
    assert not program.cached
    assert not factory.cached
    key = str(file_key(path, None, program.cell.options()))
    record = finish(RunFolder(tmp_path), factory.cell)
    assert record.artifact
    facts = record.artifact.model_copy(update={"cache_key": key})
    finish(RunFolder(tmp_path), factory.cell, artifact=facts)
    assert BuildCache().add(key, path)
    program, factory = plan(tmp_path, models=models, again=True).cells
    assert program.cached
    assert factory.cached
    (changed,) = plan(tmp_path, models={"program": models["program"]}, build={"golden": 2}).cells
    assert not changed.cached


def test_the_options_of_a_cell_are_those_that_its_command_line_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the plan would look up a different cache key than the build."""
    given: list[BuildOptions] = []
    monkeypatch.setattr(
        "linux_side.commands.build.build_artifact", lambda *_, options, **__: given.append(options) or 1 / 0
    )
    settings = {"dynamic": ["x.0=1:2:4"], "min_block_size": 3, "tf32": False, "torch_executed_ops": ["aten.relu"]}
    cell = only_cell(tmp_path, build=settings, targets=[{"gpus": ["sm_86", "sm_89"]}]).cell
    CliRunner().invoke(cli, ["build", *cell.build_arguments(), "-o", "x.pt2"])
    assert given == [cell.options()]
    assert given[0].dynamic == [DynamicDimension.parse("x.0=1:2:4")]


def test_numbers_are_left_to_a_machine_of_the_target(tmp_path: Path) -> None:
    made = plan(tmp_path, verify="numbers", machines=[WINDOWS_BOX])
    (item,) = made.cells
    assert item.level == "structure"
    document = made.to_json()
    assert document["verify"] == [
        {
            "id": "tiny-fp32-windows_x86_64-rtx",
            "platform": "windows-x86_64",
            "level": "numbers",
            "host": "box",
            "runs_on": ["self-hosted", "gpu"],
        }
    ]


def test_numbers_that_no_machine_can_verify_are_reported(tmp_path: Path) -> None:
    item = only_cell(tmp_path, verify="numbers")
    assert "no machine verifies numbers: loading it needs windows-x86_64" in str(item.unverified)


def test_numbers_are_verified_by_the_builder_where_it_can(tmp_path: Path) -> None:
    host = Host("here", "linux-x86_64", gpus=("sm_89",), backends=RTX)
    item = only_cell(tmp_path, host, verify="numbers", targets=[{"platform": "linux-x86_64"}])
    assert (item.level, item.elsewhere, item.unverified) == ("numbers", None, None)


def test_what_only_another_machine_can_build_is_left_to_it(tmp_path: Path) -> None:
    machine = {"name": "gpu_box", "gpus": ["sm_89"], "backends": {"tensorrt": "11.1"}, "runs_on": ["gpu"]}
    made = plan(tmp_path, targets=[{"backend": "tensorrt", "gpus": ["sm_89"]}], machines=[machine])
    assert made.cells[0].action is Action.ELSEWHERE
    assert made.to_json()["include"][0]["runs_on"] == ["gpu"]


def test_the_document_feeds_a_workflow(tmp_path: Path) -> None:
    document = plan(tmp_path, precisions=["fp32", "fp16"], exclude=[{"select": "*fp32*"}]).to_json()
    (entry,) = json.loads(json.dumps(document))["include"]
    assert entry["id"] == "tiny-fp16-windows_x86_64-rtx"
    assert all(isinstance(value, (str, list)) for value in entry.values())
    assert document["counts"]["excluded"] == 1


def cell_of(weights: str = "m:a") -> Cell:
    spec = {"version": 1, "models": {"a": {"model": weights}}, "targets": [{}]}
    return cells_of(parse_spec(spec, where="spec"))[0]


def test_memory_is_guessed_then_estimated_then_learned(tmp_path: Path) -> None:
    memory, cell = Memory(), cell_of()
    guess, by = memory.estimate(cell)
    assert by == "a guess"
    memory.weights["m:a"] = 2**30
    estimate, by = memory.estimate(cell)
    assert (by, estimate > 3 * 2**30 > guess) == ("its weights", True)
    memory.learn(cell, 2 * 2**30)
    learned, by = memory.estimate(cell)
    assert by == "its last build"
    assert 2 * 2**30 < learned < estimate
    memory.save(tmp_path / "memory.json")
    assert Memory.load(tmp_path / "memory.json").estimate(cell)[0] == learned


def test_a_build_that_was_killed_is_given_more(tmp_path: Path) -> None:
    memory, cell = Memory(), cell_of()
    memory.learn(cell, 2 * 2**30)
    memory.learn(cell, 3 * 2**30, killed=True)
    assert memory.estimate(cell)[0] > 4 * 2**30


def test_the_weights_of_a_program_are_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(bytes(1000))
    assert Memory().weights_of(cell_of(str(path))) == 1000


@pytest.mark.parametrize("text", ["", "[]", '{"peaks": {"a": "x", "b": -1}, "weights": 3}'])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    assert Memory.load(tmp_path / "memory.json") == Memory()
