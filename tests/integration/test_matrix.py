"""`trtcross matrix run` with the real builder: failures, kills, resumed runs, and a full disk."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Trtcross
from tests.integration.waiting import running, started, wait_for

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("matrix")]

SPEC = """
version = 1
precisions = ["fp32"]
[models.tiny]
model = "tests.models:tiny"
precisions = ["fp32", "fp16"]
[models.broken]
model = "tests.models:raises"
[[targets]]
version = "1.6"
[[include]]
model = "tiny"
precision = "fp32"
backend = "tensorrt"
gpus = ["sm_89"]
"""
TINY = ("tiny-fp32-windows_x86_64-rtx1.6", "tiny-fp16-windows_x86_64-rtx1.6")
BROKEN = "broken-fp32-windows_x86_64-rtx1.6"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_trtcross: Trtcross) -> tuple[Path, dict[str, Any], str]:
    """One run of the spec above: its folder, its document, and its messages."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "m.toml").write_text(SPEC)
    done = warm_trtcross("matrix", "run", folder / "m.toml", "--out", folder / "run", "--json")
    assert done.returncode == 7, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_a_failure_is_not_the_end(ran: tuple[Path, dict[str, Any], str], warm_trtcross: Trtcross) -> None:
    folder, document, said = ran
    states = {record["id"]: record["state"] for record in document["records"]}
    assert states == {TINY[0]: "passed", TINY[1]: "passed", BROKEN: "failed"}
    assert "the weights are gone" in said
    assert "the weights are gone" in (folder / "run" / "logs" / f"{BROKEN}.log").read_text()
    for name in TINY:
        artifact = folder / "run" / "artifacts" / f"{name}.pt2"
        assert warm_trtcross("verify", artifact, "--level", "structure").returncode == 0


def test_the_lines_of_a_record_do_that_cell_again(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, document, _ = ran
    (broken,) = [record for record in document["records"] if record["id"] == BROKEN]
    script = "\n".join(broken["reproduce"][:2])
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", script], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert "the weights are gone" in done.stderr
    assert shlex.split(broken["reproduce"][2])[:2] == ["trtcross", "verify"]


def test_what_no_machine_has_was_in_the_plan(ran: tuple[Path, dict[str, Any], str]) -> None:
    cells = {cell["id"]: cell for cell in ran[1]["plan"]["cells"]}
    foreign = cells["tiny-fp32-windows_x86_64-trt-sm_89"]
    assert foreign["action"] == "impossible"
    assert "not installed" in foreign["reason"]


def test_finished_cells_are_not_done_again(ran: tuple[Path, dict[str, Any], str], warm_trtcross: Trtcross) -> None:
    folder = ran[0]
    done = warm_trtcross("matrix", "run", folder / "m.toml", "--out", folder / "run", "--only", "tiny-*rtx*", "--json")
    assert (done.returncode, json.loads(done.stdout)["records"]) == (0, [])


def test_strict_refuses_what_cannot_be_built_here(
    ran: tuple[Path, dict[str, Any], str], warm_trtcross: Trtcross
) -> None:
    folder = ran[0]
    done = warm_trtcross("matrix", "run", folder / "m.toml", "--out", folder / "run", "--strict")
    assert done.returncode == 3
    assert "tiny-fp32-windows_x86_64-trt-sm_89: the backend needs" in done.stderr


PATIENT = """
version = 1
[models.tiny]
model = "tests.models:tiny"
[models.patient]
model = "tests.integration.matrix_models:patient"
[[targets]]
version = "1.6"
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toolchain", "matrix", "run", str(folder / "m.toml")]
    return subprocess.Popen(
        [*command, "--out", str(folder / "run"), "--jobs", "1", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATIENT": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job, as a CI may be, ignores interrupts, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_a_killed_run_leaves_nothing_behind_and_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(PATIENT)
    finished = tmp_path / "run" / "cells" / "tiny-fp32-windows_x86_64-rtx1.6.json"
    first = start(tmp_path)
    # The first call is the weighing's, and the second the build's own; cells of one size come in the spec's order.
    (weighing,) = wait_for(lambda: started(tmp_path))
    (tmp_path / "go").touch()
    wait_for(lambda: not running(weighing))
    (tmp_path / "go").unlink()
    wait_for(lambda: len(started(tmp_path)) > 1)
    (builder,) = started(tmp_path) - {weighing}
    written = finished.read_bytes()
    first.kill()
    first.wait()
    wait_for(lambda: not running(builder), 20)

    (tmp_path / "go").touch()
    second = start(tmp_path)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert "1 passed, 0 failed, 1 finished before" in output
    assert finished.read_bytes() == written
    assert not list((tmp_path / "run").rglob(".*.part"))


def test_a_second_run_says_who_is_at_work(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(PATIENT)
    first = start(tmp_path, "--only", "patient*")
    try:
        wait_for(lambda: started(tmp_path))
        second = start(tmp_path)
        output, _ = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"process {first.pid} of" in output
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130


def test_a_full_disk_fails_the_cell_and_says_so(tmp_path: Path, full_disk: Path, warm_trtcross: Trtcross) -> None:
    (tmp_path / "m.toml").write_text(PATIENT)
    done = warm_trtcross("matrix", "run", tmp_path / "m.toml", "--out", full_disk / "run", "--only", "tiny*")
    assert done.returncode in (2, 7)
    assert "No space left" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_on_a_full_disk_does_not_fail_the_run(
    tmp_path: Path, full_disk: Path, warm_trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.toml").write_text(PATIENT)
    monkeypatch.setenv("TRTCROSS_CACHE", str(full_disk / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    done = warm_trtcross("matrix", "run", tmp_path / "m.toml", "--out", tmp_path / "run", "--only", "tiny*")
    assert done.returncode == 0, done.stderr
    assert "1 passed" in done.stdout
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "not kept in the build cache" in log.read_text()


KILLED = """
version = 1
[models.killed]
model = "tests.integration.matrix_models:killed"
[models.speaks]
model = "tests.integration.matrix_models:speaks_of_kills"
[[targets]]
version = "1.6"
"""


def test_a_killed_build_gets_more_memory_and_one_that_only_mentions_a_kill_does_not(
    tmp_path: Path, warm_trtcross: Trtcross
) -> None:
    """Both mention SIGKILL; only the way in which the process ended distinguishes them."""
    (tmp_path / "m.toml").write_text(KILLED)
    done = warm_trtcross("matrix", "run", tmp_path / "m.toml", "--out", tmp_path / "run", "--jobs", 1, "--json")
    records = {record["id"].partition("-")[0]: record for record in json.loads(done.stdout)["records"]}
    assert records["killed"]["error"]["ended"] == {"signal": 9}
    assert "was killed by SIGKILL" in records["killed"]["error"]["problem"]
    assert "SIGKILL" in records["speaks"]["error"]["problem"] and "ended" not in records["speaks"]["error"]
    peaks = json.loads((tmp_path / "run" / "memory.json").read_text())["peaks"]
    assert list(peaks) == [records["killed"]["id"]]
    assert peaks[records["killed"]["id"]] > records["killed"]["peak"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Any:
    """A full file system of 64 KiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        (folder / "filler").write_bytes(bytes(60 * 1024))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
