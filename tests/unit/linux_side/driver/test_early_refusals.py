"""Certain errors are reported before a build process starts, and before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linux_side import BuildOptions, build
from linux_side.driver import building, room
from tests.conftest import ROOT
from toolchain.errors import BuildFailedError, UsageError


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail that starts a build process."""

    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("the build process was started")

    monkeypatch.setattr(building, "start_child", start)


REFUSED = {
    "no module": ("no_such_module:factory", "there is no module 'no_such_module'"),
    "no module within": ("tests.modles:tiny", "there is no module 'tests.modles'"),
    "no function": ("tests.models:tyni", "there is no 'tyni' in tests.models"),
    "no file": ("./tests/modles.py:tiny", "there is no file tests/modles.py"),
    "no model": ("no.pt2", "there is no model 'no.pt2'"),
}


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_does_not_exist(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    model, words = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        build(model, tmp_path / "out.pt2")
    assert words in caught.value.problem.replace("\\", "/") and caught.value.remedy


@pytest.mark.usefixtures("no_child")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is a folder in which nobody can write")
def test_an_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError, match="no file can be written there"):
        build("tests.models:tiny", "/proc/out.pt2")


@pytest.mark.usefixtures("no_child")
def test_trying_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "out.pt2").write_bytes(b"before")
    with pytest.raises(AssertionError, match="was started"):
        build("tests.models:tiny", tmp_path / "out.pt2", cache=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.pt2", b"before")]


@pytest.mark.skipif(os.name == "nt", reason="the producer runs on Linux")
def test_a_typo_costs_half_a_second_of_the_processor(tmp_path: Path) -> None:
    import resource

    command = [sys.executable, "-m", "toolchain", "build", "-o", str(tmp_path / "out.pt2")]
    for typo in (["tests.models:tyni"], ["tests.models:tiny", "--precison", "fp16"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run([*command, *typo], cwd=ROOT, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 2, result.stderr
        # The goal is 0.5 s on the machine that docs/benchmarks/build.md describes; importing torch takes over 2.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


GIB = 2**30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sets the free memory and disk space that a build sees, because no test may fill the real ones."""
    sizes = {"memory": 64 * GIB, "disk": 200 * GIB}
    monkeypatch.setattr(room, "free_memory", lambda: sizes["memory"])
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=sizes["disk"]))
    return sizes


def require(weights: int, folder: Path, precision: str = "fp32") -> list[str]:
    warnings: list[str] = []
    needs = room.Needs.of(weights, BuildOptions(precision=precision))
    room.require_room(needs, folder, folder / "out.pt2", warnings.append)
    return warnings


def test_memory_that_will_not_do_is_refused_and_little_of_it_is_a_warning(free: dict[str, int], tmp_path: Path) -> None:
    assert require(8 * GIB, tmp_path) == []
    free["memory"] = 12 * GIB
    (warning,) = require(8 * GIB, tmp_path)
    assert "estimated to need 12.68 GiB of memory, and 12.00 GiB is free" in warning
    assert require(8 * GIB, tmp_path, "fp16") == []
    free["memory"] = 6 * GIB
    with pytest.raises(BuildFailedError, match=r"12\.68 GiB of memory, and 6\.00 GiB is free"):
        require(8 * GIB, tmp_path)


def test_a_disk_that_will_not_do_is_refused(free: dict[str, int], tmp_path: Path) -> None:
    free["disk"] = 20 * GIB
    with pytest.raises(BuildFailedError, match=r"needs about 26\.67 GiB of disk, and 20\.00 GiB is free"):
        require(8 * GIB, tmp_path)


def test_a_small_model_gets_no_warning(free: dict[str, int], tmp_path: Path) -> None:
    free.update(memory=2**20, disk=2**20)
    assert require(2**20, tmp_path) == []


@pytest.mark.usefixtures("no_child")
def test_a_saved_program_that_does_not_fit_is_refused_before_the_build_process(
    free: dict[str, int], tmp_path: Path
) -> None:
    free["memory"] = GIB
    model = tmp_path / "model.pt2"
    with model.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(4 * GIB)  # a file with a hole
    with pytest.raises(BuildFailedError, match=r"8\.68 GiB of memory, and 1\.00 GiB is free"):
        build(model, tmp_path / "out.pt2", cache=False)
