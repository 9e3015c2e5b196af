"""Writing in blocks, with or without the page cache, writes the given bytes, and failures are raised."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolchain.io import bulk_file
from toolchain.io.bulk_file import BulkFile

BLOCK = 4096


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_file, "BLOCK", BLOCK)


def written(path: Path, chunks: list[bytes], rewrites: list[tuple[int, bytes]] = ()) -> bytes:  # type: ignore[assignment]
    path.write_bytes(b"")
    file = BulkFile(path)
    for chunk in chunks:
        file.write(chunk)
    assert file.position == sum(map(len, chunks))
    for offset, data in rewrites:
        file.rewrite(offset, data)
    file.finish()
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 3 * BLOCK), max_size=8), st.integers(0, 255))
def test_any_chunks(tmp_path: Path, sizes: list[int], start: int) -> None:
    chunks = [bytes([(start + index) % 256]) * size for index, size in enumerate(sizes)]
    assert written(tmp_path / "a", chunks) == b"".join(chunks)


@pytest.mark.parametrize("offset", [0, 10, BLOCK - 2, BLOCK, 2 * BLOCK + 1])
def test_rewriting_what_is_in_a_block_that_is_gone(tmp_path: Path, offset: int) -> None:
    data = os.urandom(2 * BLOCK + 100)
    assert written(tmp_path / "a", [data], [(offset, b"1234")]) == data[:offset] + b"1234" + data[offset + 4 :]


class Refusing(io.FileIO):
    """A file on a file system that accepts O_DIRECT at open and rejects the write."""

    code = errno.EINVAL

    def write(self, data: object) -> int:
        raise OSError(self.code, "refused")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_writes_through_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(Refusing, "code", code)
    monkeypatch.setattr(bulk_file, "_open_past_the_cache", lambda path: Refusing(path, "r+b"))
    data = os.urandom(5 * BLOCK + 1)
    assert written(tmp_path / "a", [data]) == data


def test_no_way_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_file, "_open_past_the_cache", lambda path: None)
    data = os.urandom(5 * BLOCK + 1)
    assert written(tmp_path / "a", [data]) == data


def test_a_failure_on_the_second_thread_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refusing, "code", errno.ENOSPC)
    monkeypatch.setattr(bulk_file, "_open_past_the_cache", lambda path: Refusing(path, "r+b"))
    (tmp_path / "a").touch()
    file = BulkFile(tmp_path / "a")
    file.write(bytes(BLOCK))
    with pytest.raises(OSError, match="refused"):
        file.finish()
    file.close()
