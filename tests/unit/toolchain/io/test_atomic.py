"""A file is whole or unchanged, whether two writers write it at once, or one is killed or fails."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from toolchain.io.atomic import replacing, write_bytes

SIZE = 2**20


def _write_for_ever(path: Path, number: int) -> None:
    while True:
        write_bytes(path, bytes([number]) * SIZE)


def test_two_writers_at_once_and_one_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writers = [get_context("spawn").Process(target=_write_for_ever, args=(path, number)) for number in (1, 2)]
    try:
        for writer in writers:
            writer.start()
        seen = set[int]()
        while len(seen) < 2:
            assert all(writer.is_alive() for writer in writers), "a writer failed"
            seen |= _contents(path)
        writers[0].kill()
        writers[0].join()
        while _contents(path) != {2}:  # the other goes on
            assert writers[1].is_alive()
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert _contents(path) == {2}


def _contents(path: Path) -> set[int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    except PermissionError:  # Windows, while the file is replaced
        assert os.name == "nt"
        return set()
    assert len(data) in (0, SIZE) and len(set(data)) <= 1, "part of a file, or of two"
    return set(data)


def _die_half_way(path: Path) -> None:
    with replacing(path) as part:
        part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    writer = get_context("spawn").Process(target=_die_half_way, args=(path,))
    writer.start()
    writer.join()
    assert (writer.exitcode, path.read_bytes()) == (-signal.SIGKILL, b"before")
    write_bytes(path, b"after")  # what it left is in nobody's way
    assert path.read_bytes() == b"after"


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"before", [path])


def test_it_is_on_the_disk_before_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced, fsync = tmp_path / "out", list[tuple[int, bool]](), os.fsync

    def watched(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_bytes(path, b"data")
    assert synced[0] == (path.stat().st_ino, False)
    if sys.platform != "win32":
        assert synced[1:] == [(tmp_path.stat().st_ino, True)]


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="the destination is a folder"):
        write_bytes(tmp_path / "out", b"data")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
