"""A real disk and a real memory limit end in the middle of a build: the error, and what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trtcross

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system, or limits memory by a control group"),
]

MODEL = "benchmarks.scale:perceptron"
GROUPS = Path("/sys/fs/cgroup")
LIMIT = 700 * 2**20


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


@pytest.mark.parametrize(("small_spool", "phase"), [(24, "export"), (90, "convert")], indirect=["small_spool"])
def test_a_spool_that_fills_is_said_to_be_full_and_nothing_is_left(
    small_spool: Path, phase: str, tmp_path: Path, warm_trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_spool))
    monkeypatch.setenv("BENCHMARK_MIB", "64")
    done = warm_trtcross("build", MODEL, "-o", tmp_path / "out.pt2", "-q", "--no-cache", "--golden", 0)
    assert done.returncode == 7, done.stderr
    assert "is full" in done.stderr and f"phase '{phase}'" in done.stderr and "$TMPDIR" in done.stderr
    assert not list(small_spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group whose processes may use 700 MiB of memory."""
    first = GROUPS / "memory" / f"trtcross-{os.getpid()}", "memory.limit_in_bytes"
    second = GROUPS / f"trtcross-{os.getpid()}", "memory.max"
    folder, limit = first if (GROUPS / "memory").is_dir() else second
    try:
        folder.mkdir()
        (folder / limit).write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_memory_limit_that_is_met_in_convert_is_said_with_the_estimate(group: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    joined = 'echo $$ > $0/cgroup.procs && exec "$@"'
    out = str(tmp_path / "out.pt2")
    command = [sys.executable, "-m", "toolchain", "build", MODEL, "-o", out, "-q", "--no-cache", "--golden", "0"]
    done = subprocess.run(
        ["sh", "-c", joined, str(group), *command],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(spool), "BENCHMARK_MIB": "240"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 7, done.stderr
    assert "was killed by SIGKILL" in done.stderr and "phase 'convert'" in done.stderr
    assert "too little memory" in done.stderr and "was estimated to need" in done.stderr
    assert not list(spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]
