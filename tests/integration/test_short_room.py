"""A real disk and a real memory limit end in the middle of a build: the error, and what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trtcross, in_group

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system, or limits memory by a control group"),
]

MODEL = "benchmarks.scale:perceptron"


@pytest.fixture
def small_spool(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, with the size in MiB of the test's parameter."""
    folder = tmp_path / "spool"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def build_in(group: Path, environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs ``trtcross build`` in a control group, with these environment variables more."""
    command = [sys.executable, "-m", "toolchain", "build", *map(str, arguments)]
    return subprocess.run(
        in_group(group, *command),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(("small_spool", "phase"), [(24, "export"), (90, "convert")], indirect=["small_spool"])
def test_a_full_spool_is_reported_and_nothing_is_left(
    small_spool: Path, phase: str, tmp_path: Path, warm_trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_spool))
    monkeypatch.setenv("BENCHMARK_MIB", "64")
    done = warm_trtcross("build", MODEL, "-o", tmp_path / "out.pt2", "-q", "--no-cache", "--golden", 0)
    assert done.returncode == 7, done.stderr
    assert "is full" in done.stderr and f"phase '{phase}'" in done.stderr and "$TMPDIR" in done.stderr
    assert not list(small_spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_a_memory_limit_that_convert_exceeds_is_reported_with_the_estimate(memory_group: Path, tmp_path: Path) -> None:
    """A model of so few weights is not refused beforehand, although its estimate is above the limit of 700 MiB."""
    spool = tmp_path / "spool"
    spool.mkdir()
    environment = {"TMPDIR": str(spool), "BENCHMARK_MIB": "180"}
    done = build_in(memory_group, environment, MODEL, "-o", tmp_path / "out.pt2", "-q", "--no-cache", "--golden", 0)
    assert done.returncode == 7, done.stderr
    assert "was killed by SIGKILL" in done.stderr and "phase 'convert'" in done.stderr
    assert "too little memory" in done.stderr and "was estimated to need" in done.stderr
    assert not list(spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_a_program_that_a_memory_limit_cannot_hold_is_refused_before_the_work(
    memory_group: Path, tmp_path: Path
) -> None:
    model, spool = tmp_path / "model.pt2", tmp_path / "spool"
    spool.mkdir()
    with model.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2**30)  # a file with a hole
    done = build_in(memory_group, {"TMPDIR": str(spool)}, model, "-o", tmp_path / "out.pt2", "--no-cache")
    assert done.returncode == 7, done.stderr
    assert "estimated to need 2.68 GiB of memory" in done.stderr and " MiB is free" in done.stderr
    assert "this machine's memory" in done.stderr and not list(spool.glob("trtcross-*"))


_NO_LINKS = """
import os, sys

def refuse(event, arguments):
    if event == "os.link":
        raise PermissionError(1, "Operation not permitted", arguments[0])

sys.addaudithook(refuse)
with open(os.environ["STARTED"], "a") as file:
    file.write("one\\n")
"""


def test_a_build_needs_no_hard_links(tmp_path: Path) -> None:
    """Every process of the build is refused hard links, with the error that FAT gives.

    This is a fake, because file systems without hard links cannot be mounted where tests run: Linux's own are not
    built into every kernel, and those of FUSE have to be installed. Once it was seen on a FAT by FUSE.
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_NO_LINKS)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
        "STARTED": str(tmp_path / "started"),
        "BENCHMARK_MIB": "16",
        "TRTCROSS_CACHE": str(tmp_path / "cache"),
        "TRTCROSS_CACHE_SIZE": "1GiB",
    }
    linked = "import os, sys; os.link(sys.argv[1], sys.argv[1] + '2')"
    refused = subprocess.run(
        [sys.executable, "-c", linked, str(tmp_path / "started")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Operation not permitted" in refused.stderr
    command = [sys.executable, "-m", "toolchain", "build", MODEL, "-o", str(tmp_path / "out.pt2"), "--json"]
    for from_cache in (False, True):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["manifest"]["build"]["from_cache"] is from_cache
    assert len((tmp_path / "started").read_text().split()) >= 5  # each build's own process too
