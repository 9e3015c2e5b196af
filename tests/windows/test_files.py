"""Files that another process has open, read-only files, and folders in the place of a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Trtcross
from toolchain.container.reader import Container
from toolchain.container.writer import ContainerWriter
from toolchain.errors import BuildFailedError

HOLD = {
    "opened": "file = open(sys.argv[1], 'rb')",
    "mapped": "import mmap; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()",
}


@contextmanager
def held(path: Path, how: str) -> Iterator[None]:
    """Makes another process have the file open."""
    script = f"import sys; {HOLD[how]}; print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline().strip() == "held"
        yield
        process.communicate("", timeout=30)


def write(path: Path, data: bytes) -> None:
    with ContainerWriter(path) as writer:
        writer.add("entry", data)


@pytest.mark.parametrize("how", HOLD)
def test_a_file_that_another_process_holds_is_not_replaced(tmp_path: Path, how: str) -> None:
    path = tmp_path / "held.pt2"
    write(path, b"old")
    with held(path, how):
        with pytest.raises(BuildFailedError, match="in use by another process") as failure:
            write(path, b"new")
        assert failure.value.remedy
        assert Container(path).read("entry") == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(path, b"new")
    assert Container(path).read("entry") == b"new"


def test_a_held_artifact_can_be_read(trtcross: Trtcross, artifact: Path) -> None:
    with held(artifact, "opened"):
        result = trtcross("verify", artifact, "--level", "structure")
    assert result.returncode == 0, result.stderr


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept.pt2"
    write(path, b"old")
    path.chmod(0o444)
    with pytest.raises(BuildFailedError, match="read-only"):
        write(path, b"new")
    assert Container(path).read("entry") == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(BuildFailedError, match="is a folder"):
        write(tmp_path / "folder.pt2", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.pt2"]


def test_a_read_only_folder(trtcross: Trtcross, artifact: Path) -> None:
    """The folder can be read. Writing is refused at once, although tempfile might try names there for hours."""
    if not (place := os.environ.get("TRTCROSS_READ_ONLY")):
        pytest.skip("TRTCROSS_READ_ONLY names no folder that cannot be written to")
    before = sorted(Path(place).iterdir())
    result = trtcross("verify", Path(place) / before[0], "--level", "structure")
    assert result.returncode == 0, result.stderr
    out = Path(place) / "new.pt2"
    written = trtcross("convert", artifact, "--target", "linux-x86_64", "-o", out, timeout=20)
    assert written.returncode == 7 and "cannot be written to" in written.stderr
    assert sorted(Path(place).iterdir()) == before
