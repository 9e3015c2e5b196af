"""The build cache with the real builder: second builds, damaged entries, bad disks, builds at once, kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.cache_fire import small_disk
from linux_side.cache.store import BuildCache
from tests.conftest import ROOT, Trtcross
from tests.integration.test_build import contents
from tests.models import tiny
from toolchain import open_artifact
from toolchain.manifest.models import BuildRecord

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("build cache")]

KILLS = 24  # three in each phase; docs/benchmarks/cache.md has a longer run
Use = Callable[[Path], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Sets the folder of the cache."""

    def set_folder(folder: Path) -> None:
        monkeypatch.setenv("TRTCROSS_CACHE", str(folder))
        monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")

    return set_folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    model, args = tiny()
    torch.export.save(torch.export.export(model, args), path)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, program: Path, warm_trtcross: Trtcross) -> tuple[Path, Path]:
    """An artifact and the cache that its build filled."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTCROSS_CACHE", str(folder / "cache"))
        patch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
        result = warm_trtcross("build", program, "-o", folder / "first.pt2")
    assert result.returncode == 0, result.stderr
    return folder / "first.pt2", folder / "cache"


def record(path: Path) -> BuildRecord:
    with open_artifact(path) as artifact:
        artifact.check_integrity()
        return artifact.manifest.build


SECOND = """
import subprocess, sys, time
def no_child(*_, **__): raise AssertionError("a process was started")
subprocess.Popen.__init__ = no_child
from linux_side import build
build(sys.argv[1], sys.argv[2]).close()
assert not {"torch", "torch_tensorrt", "tensorrt"} & set(sys.modules)
print(time.process_time())
"""


def test_a_second_build_of_a_program_needs_no_torch_and_gives_the_same(
    first: tuple[Path, Path], program: Path, tmp_path: Path, use: Use
) -> None:
    artifact, cache = first
    use(cache)
    assert record(artifact).cache_key == BuildCache().entries()[0].key and not record(artifact).from_cache
    second = tmp_path / "second.pt2"
    shutil.copytree(program.parent, tmp_path / "elsewhere")
    arguments = [sys.executable, "-c", SECOND, tmp_path / "elsewhere" / program.name, second]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2, "seconds of processor time"
    assert contents(second) == contents(artifact) and list(contents(second)) == list(contents(artifact))
    assert record(second) == BuildRecord(seconds={}, cache_key=record(artifact).cache_key, from_cache=True)


def test_a_second_build_of_a_factory_stops_after_the_export(tmp_path: Path, warm_trtcross: Trtcross, use: Use) -> None:
    use(tmp_path / "cache")
    outs = [tmp_path / "first.pt2", tmp_path / "second.pt2"]
    said = [warm_trtcross("build", "tests.models:tiny", "-o", out).stdout for out in outs]
    assert "[convert]" in said[0] and "built before" not in said[0]
    assert "[convert]" not in said[1] and "[tensorrt]" not in said[1] and "built before" in said[1]
    assert contents(outs[0]) == contents(outs[1])
    builds = [record(out) for out in outs]
    assert [build.from_cache for build in builds] == [False, True]
    assert builds[0].cache_key == builds[1].cache_key == BuildCache().entries()[0].key
    assert set(builds[1].seconds) == {"import", "export"}


def test_no_cache_neither_takes_nor_keeps(
    first: tuple[Path, Path], program: Path, tmp_path: Path, warm_trtcross: Trtcross, use: Use
) -> None:
    use(first[1])
    before = BuildCache().entries()
    assert warm_trtcross("build", program, "-o", tmp_path / "out.pt2", "--no-cache").returncode == 0
    assert record(tmp_path / "out.pt2").cache_key is None and not record(tmp_path / "out.pt2").from_cache
    assert BuildCache().entries() == before
    assert contents(tmp_path / "out.pt2") == contents(first[0])


def test_a_damaged_entry_is_built_again(
    first: tuple[Path, Path], program: Path, tmp_path: Path, warm_trtcross: Trtcross, use: Use
) -> None:
    use(tmp_path / "cache")
    shutil.copytree(first[1], tmp_path / "cache")
    entry = BuildCache().entries()[0]
    data = bytearray(entry.artifact.read_bytes())
    data[len(data) // 2] ^= 1
    entry.artifact.write_bytes(data)
    assert warm_trtcross("store", "verify").returncode == 4
    result = warm_trtcross("build", program, "-o", tmp_path / "out.pt2", "--json")
    assert result.returncode == 0
    assert "damaged entry" in json.loads(result.stdout)["warnings"][0]
    assert not record(tmp_path / "out.pt2").from_cache
    assert contents(tmp_path / "out.pt2") == contents(first[0])
    assert warm_trtcross("store", "verify").returncode == 0 and len(BuildCache().entries()) == 1


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_cache_on_a_full_disk_or_a_read_only_one_costs_no_build(
    first: tuple[Path, Path], program: Path, tmp_path: Path, warm_trtcross: Trtcross, use: Use
) -> None:
    try:
        with small_disk(tmp_path, 2**14) as disk:
            use(disk / "cache")
            result = warm_trtcross("build", program, "-o", tmp_path / "out.pt2", "-q")
            assert result.returncode == 0 and "No space left" in result.stdout
            assert contents(tmp_path / "out.pt2") == contents(first[0])
            assert BuildCache().entries() == [] and not list((disk / "cache").glob(".part-*"))
        (tmp_path / "disk").rmdir()
        with small_disk(tmp_path, 2**26) as disk:
            shutil.copytree(first[1], disk / "cache")
            use(disk / "cache")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            result = warm_trtcross("build", program, "-o", tmp_path / "served.pt2", "-q")
            assert result.returncode == 0 and "warning" not in result.stdout
            assert record(tmp_path / "served.pt2").from_cache
            assert warm_trtcross("store", "prune", "--all").returncode == 2
    except PermissionError as error:
        pytest.skip(str(error))


def test_two_builds_of_the_same_at_once(program: Path, tmp_path: Path, warm_trtcross: Trtcross, use: Use) -> None:
    use(tmp_path / "cache")
    outs = [tmp_path / "one.pt2", tmp_path / "two.pt2"]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda out: warm_trtcross("build", program, "-o", out, "--json"), outs))
    assert [result.returncode for result in results] == [0, 0]
    assert not any(json.loads(result.stdout)["warnings"] for result in results)
    assert contents(outs[0]) == contents(outs[1]) and len(BuildCache().entries()) == 1


def test_a_program_that_is_written_to_while_it_is_built_gets_no_key(program: Path) -> None:
    from linux_side.cache.key import file_key
    from linux_side.driver.worker import Build
    from linux_side.options import BuildOptions

    unused: Any = None
    build = Build()
    build._pipeline = cast(Any, SimpleNamespace(options=BuildOptions()))
    for known, expected in ((file_key(program, None, BuildOptions()), True), ("0" * 64, False)):
        assert not build._cached({"model": str(program), "name": None, "cache_key": known, "out": "x.pt2"}, unused)
        assert (build._keys["x.pt2"] is not None) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_whatever_is_killed_no_reader_gets_anything_but_a_whole_build() -> None:
    command = [sys.executable, "-m", "benchmarks.cache_fire", "--kills", str(KILLS), "--rounds", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "KILLS" in done.stdout
