"""Killed writers and full disks leave the old artifact or the new one at the destination, never a part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from toolchain.container.writer import ContainerWriter
from toolchain.errors import BuildFailedError
from toolchain.graph.writer import write_graph

KILLS = 21  # three in each phase; docs/benchmarks/crash.md holds a longer run


@pytest.mark.rtx
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one() -> None:
    command = [sys.executable, "-m", "tests.integration.crash_writer", "--kills", str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stderr
    assert "KILLS" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("megabytes", [7, 40], ids=["at its end", "in the middle"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk: Path, megabytes: int) -> None:
    from benchmarks.synthetic import streamed_engine

    out = small_disk / "artifact.pt2"
    out.write_bytes(b"the old file")
    # 7 MiB in base64 are over 9 MiB and fill the disk after the engine's last chunk but one.
    with pytest.raises(BuildFailedError, match="could not be written") as failed, ContainerWriter(out) as writer:
        write_graph(writer, b'{"engine":"trtcross-engine-0"}', [streamed_engine(megabytes * 2**20)])
    assert "free some disk space" in str(failed.value)
    assert out.read_bytes() == b"the old file"
    assert list(small_disk.iterdir()) == [out]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_fills_up_with_the_directory_record(small_disk: Path) -> None:
    out = small_disk / "artifact.pt2"
    out.write_bytes(b"the old file")
    with pytest.raises(BuildFailedError), ContainerWriter(out) as writer:
        writer.add("first", b"")
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
        writer.add("second", bytes(free - 4096))  # the records of both entries do not fit behind it
        for index in range(200):
            writer.add(f"entry_{index:060}", b"")
    assert out.read_bytes() == b"the old file"
    assert list(small_disk.iterdir()) == [out]
