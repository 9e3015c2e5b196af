"""Engines over 4 GiB: zip64, offsets beyond 32 bits, and memory that does not grow with the engine."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.measure import measure
from toolchain import open_artifact
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.errors import MalformedArtifactError

pytestmark = [pytest.mark.rtx, pytest.mark.slow, pytest.mark.xdist_group("container big")]

GIB, MIB = 2**30, 2**20
SIZE = 9 * GIB // 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """An artifact with one engine of 4.5 GiB, and the engine's digest."""
    folder = tmp_path_factory.mktemp("big")
    free = shutil.disk_usage(folder).free
    if free < 15 * GIB:
        pytest.skip(f"needs 15 GiB of disk, {free / GIB:.0f} are free")
    path = folder / "big.pt2"
    measured = measure("benchmarks.big:save_streamed", path, SIZE)
    assert measured.peak < 300 * MIB, "saving held the engine in memory"
    assert not measured.result["stock"], "torch.export.load cannot hold it, and the manifest has to say so"
    yield path, measured.result["sha256"]
    path.unlink()


def test_it_is_a_zip64_archive_for_other_readers_too(saved: tuple[Path, str]) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        graph = archive.getinfo(f"artifact/{GRAPH_ENTRY}")
        assert graph.file_size == graph.compress_size > 2**32
        assert max(info.header_offset for info in archive.infolist()) > 2**32


def test_it_is_read_as_a_stream(saved: tuple[Path, str]) -> None:
    path, sha256 = saved
    measured = measure("benchmarks.big:read_streamed", path)
    assert measured.result == sha256
    assert measured.peak < 300 * MIB, "reading held the engine in memory"


def test_a_byte_changed_past_4_gib_is_found(saved: tuple[Path, str]) -> None:
    path, _ = saved
    with open_artifact(path) as artifact:
        span = artifact.engines[0].entry.base64
        place = artifact.container.entry(GRAPH_ENTRY).offset + span.offset + span.length - 100
    assert place > 2**32
    _swap_character(path, place)
    try:
        with open_artifact(path) as artifact, pytest.raises(MalformedArtifactError, match="digest"):
            artifact.check_engines()
    finally:
        _swap_character(path, place)


def test_a_file_cut_short_is_refused_when_it_is_opened(saved: tuple[Path, str]) -> None:
    path, _ = saved
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.truncate()
    try:
        with pytest.raises(MalformedArtifactError):
            open_artifact(path)
    finally:
        with path.open("ab") as file:
            file.write(last)


def _swap_character(path: Path, place: int) -> None:
    """Changes the lowest bit of one base64 digit; a second call restores it."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    with path.open("r+b") as file:
        file.seek(place)
        digit = alphabet.index(file.read(1))
        file.seek(place)
        file.write(alphabet[digit ^ 1 :][:1])
