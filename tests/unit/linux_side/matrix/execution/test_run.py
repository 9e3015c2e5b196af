"""Running cells: the memory budget, the lock, failures that do not stop the run, and the files that remain."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from linux_side.driver import tree
from linux_side.driver.leaf import Leaf, Outcome
from linux_side.matrix.execution import local_executor
from linux_side.matrix.execution.job import Job
from linux_side.matrix.execution.local_executor import LocalExecutor
from linux_side.matrix.execution.processes import Cancelled, Processes
from linux_side.matrix.execution.progress import LiveProgress, progress_for
from linux_side.matrix.records import CellRecord, RunFolder
from linux_side.matrix.spec.cells import Cell, cells_of
from linux_side.matrix.spec.spec import parse_spec
from tests.unit.imports import imported_by
from tests.unit.matrix_runs import finish
from toolchain.cli.output import Output
from toolchain.errors import BuildFailedError, UsageError
from toolchain.io.atomic import read_json, write_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a matrix is built on Linux")


def cells(count: int) -> list[Cell]:
    models = {f"m{index}": {"model": f"m:m{index}"} for index in range(count)}
    return cells_of(parse_spec({"version": 1, "models": models, "targets": [{}]}, where="spec"))


class Workshop:
    """Replaces builds; records the most memory in use and the order of the cells."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = RunFolder(folder)
        self.lock = threading.Lock()
        self.used = self.peak = self.together = self.most = 0
        self.order: list[int] = []
        self.broken: set[int] = set()
        monkeypatch.setattr(tree, "_share", lambda _: False)
        monkeypatch.setattr(tree, "Prepared", lambda *_, **__: self)
        monkeypatch.setattr(tree.Tree, "_alone", self.build)
        monkeypatch.setattr(local_executor, "verified", self.verify)

    def from_cache(self) -> None:
        """Serves nothing, so that each cell is built."""

    def jobs(self, *sizes: int) -> list[Job]:
        return [
            Job(cell, cell.digest(), "structure", self.folder.artifact(cell.id), self.folder.log(cell.id), size)
            for cell, size in zip(cells(len(sizes)), sizes, strict=True)
        ]

    def build(self, leaf: Leaf, _reason: object) -> Outcome:
        memory = leaf.memory
        with self.lock:
            self.order.append(memory)
            self.used, self.together = self.used + memory, self.together + 1
            self.peak, self.most = max(self.peak, self.used), max(self.most, self.together)
        time.sleep(0.02)
        with self.lock:
            self.used, self.together = self.used - memory, self.together - 1
        return Outcome(None, BuildFailedError("nobody looks"))

    def verify(self, job: Job, *_: object) -> CellRecord:
        if job.memory in self.broken:
            raise OSError("No space left on device")
        return finish(self.folder, job.cell)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def run(executor: LocalExecutor, jobs: list[Job]) -> list[str]:
    return [record.state for record in executor.run(jobs, lambda *_: None)]


def test_the_budget_and_the_number_of_workers_hold(workshop: Workshop) -> None:
    assert run(LocalExecutor(3, 10), workshop.jobs(4, 5, 6, 3, 2, 1, 7)) == ["passed"] * 7
    assert workshop.peak <= 10
    assert 2 <= workshop.most <= 3


def test_what_takes_more_than_the_budget_runs_alone(workshop: Workshop) -> None:
    run(LocalExecutor(3, 10), workshop.jobs(1, 2, 50))
    assert workshop.order[0] == 50
    assert workshop.peak == 50


def test_a_cell_that_cannot_even_start_does_not_take_the_others_along(workshop: Workshop) -> None:
    workshop.broken = {2}
    records = {r.id: r for r in LocalExecutor(2, 10).run(workshop.jobs(1, 2, 3), lambda *_: None)}
    assert sorted(record.state for record in records.values()) == ["failed", "passed", "passed"]
    failed = next(record for record in records.values() if record.state == "failed")
    assert "No space left" in str(failed.error)


def test_the_second_run_says_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from linux_side.matrix.records import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).hold('the first run'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError) as caught, RunFolder(tmp_path).hold("the second run"):
            pass
        assert str(holder.pid) in caught.value.problem
        assert "the first run" in caught.value.problem
    finally:
        holder.kill()
        holder.wait()
    with RunFolder(tmp_path).hold("the third run"):  # a killed run holds nothing
        pass


def test_a_run_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"), RunFolder(tmp_path / "file").hold("a run"):
        pass


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_child_gives_its_document_its_peak_and_its_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        done = Processes().run(["verify", str(tmp_path / "none.pt2")], log)
    error = done.error()
    assert (done.ended.code, type(error)) == (2, UsageError)
    assert done.peak > 10 * 2**20
    assert "none.pt2" in (tmp_path / "log").read_text()


def test_what_a_child_prints_is_neither_a_phase_nor_a_document(tmp_path: Path) -> None:
    """The factory is the user's own code, and prints texts that look like a build's events."""
    pytest.importorskip("torch")
    phases: list[str] = []
    with (tmp_path / "log").open("wb") as log:
        arguments = ["build", "tests.unit.talkative:talkative", "-o", str(tmp_path / "x.pt2"), "-v"]
        done = Processes().run(arguments, log, on_phase=phases.append)
    assert "talked" not in phases
    assert done.document and done.document["verb"] == "build" and not done.document["ok"]
    said = (tmp_path / "log").read_text()
    assert "[talked] nonsense ..." in said and '{"ok": true}' in said
    assert phases[:1] == ["import"]


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        done = Processes().run(["build", "time:sleep", "-o", str(tmp_path / "x.pt2")], log, timeout=0.05)
    assert done.timed_out
    assert "--timeout" in str(done.error())


def test_stopping_ends_the_children(tmp_path: Path) -> None:
    processes = Processes()
    threading.Timer(0.3, processes.stop).start()
    start = time.monotonic()
    with (tmp_path / "log").open("wb") as log, pytest.raises(Cancelled):
        processes.run(["build", "tests.models:tiny", "-o", str(tmp_path / "x.pt2")], log)
    assert time.monotonic() - start < 5
    with (tmp_path / "log").open("wb") as log, pytest.raises(Cancelled):
        processes.run(["--version"], log)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_how_each_cell_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(Output, "bars", terminal)
    passing, failing = cells(2)
    error = {"kind": "BuildFailedError", "problem": "no [red]luck[/blue]\x1b[31m\nat all", "exit_code": 7}
    records = [finish(RunFolder(tmp_path), passing), finish(RunFolder(tmp_path), failing, state="failed", error=error)]
    progress = progress_for(Output("matrix run", False, 0), 2)
    assert isinstance(progress, LiveProgress) is terminal
    with progress:
        for record in records:
            progress.phase(record.id, "start")
            progress.phase(record.id, "convert")
            progress.done(record)
    said = " ".join(capsys.readouterr().out.split())
    assert terminal or said.startswith("[0/2] cells to build and verify")
    assert f"passed {passing.id}: 2.0 s, 8 B, verified to structure" in said
    assert f"FAILED {failing.id}: build: no [red]luck[/blue]" in said
    assert "at all" not in said
    assert "\x1b" not in said


def test_plan_is_a_document_and_an_empty_selection_is_a_usage_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_libs")  # a cell whose backend is not installed is not included
    spec = tmp_path / "m.toml"
    spec.write_text('version = 1\n[models.a]\nmodel = "tests.models:tiny"\n[[targets]]\n')
    command = [sys.executable, "-m", "toolchain", "matrix", "plan", str(spec), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [entry["id"] for entry in json.loads(done.stdout)["include"]] == ["a-fp32-windows_x86_64-rtx"]
    done = subprocess.run([*command, "--only", "b*"], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]["kind"]) == (2, "UsageError")
    assert "a-fp32-windows_x86_64-rtx" in document["error"]["remedy"]


def test_planning_and_reporting_import_neither_torch_nor_ray(tmp_path: Path) -> None:
    spec, out = tmp_path / "m.toml", tmp_path / "run"
    spec.write_text('version = 1\n[models.a]\nmodel = "tests.models:tiny"\n[[targets]]\n')
    out.mkdir()
    code = (
        "import sys; from toolchain.cli.main import cli\n"
        "for verb in ('plan', 'report'): cli(['matrix', verb, *sys.argv[1:]], standalone_mode=False)"
    )
    assert not imported_by(code, str(spec), "--out", str(out)) & {"torch", "ray", "windows_side", "tensorrt"}


def test_ray_without_an_address_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from toolchain.cli.main import cli

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    spec = tmp_path / "m.toml"
    spec.write_text('version = 1\n[models.a]\nmodel = "tests.models:tiny"\n[[targets]]\n')
    result = CliRunner().invoke(cli, ["matrix", "plan", str(spec), "--executor", "ray"])
    assert result.exit_code == 2
    assert "ray start --head" in result.output
