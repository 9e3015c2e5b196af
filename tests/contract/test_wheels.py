"""The downloader of wheels: it trusts a cached file only by its hash, and reports an index that is unreachable."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from .wheels import IndexUnreachableError, Wheel, fetch, locked_wheels

# The smallest one.
WHEEL = next(wheel for wheel in locked_wheels() if wheel.name == "tensorrt-cu13-bindings")


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pip use only an index that refuses connections."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if sys.platform != "win32" else "nul")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def cached(wheel: Wheel, wheel_files: dict[Wheel, Path], cache: Path) -> Path:
    copy = cache / wheel_files[wheel].name
    copy.write_bytes(wheel_files[wheel].read_bytes())
    return copy


@pytest.mark.usefixtures("no_index")
def test_a_cached_wheel_needs_no_index(wheel_files: dict[Wheel, Path], tmp_path: Path) -> None:
    copy = cached(WHEEL, wheel_files, tmp_path)
    assert fetch(WHEEL, tmp_path) == copy


@pytest.mark.usefixtures("no_index")
def test_an_unreachable_index_has_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(IndexUnreachableError, match="tensorrt-cu13-bindings"):
        fetch(WHEEL, tmp_path)


def test_a_corrupt_cache_is_downloaded_again(wheel_files: dict[Wheel, Path], tmp_path: Path) -> None:
    copy = cached(WHEEL, wheel_files, tmp_path)
    original = copy.read_bytes()
    copy.write_bytes(original[:-1])
    try:
        assert fetch(WHEEL, tmp_path).read_bytes() == original
    except IndexUnreachableError as error:
        pytest.skip(str(error))


def test_another_hash_is_refused(tmp_path: Path) -> None:
    try:
        with pytest.raises(RuntimeError, match="DO NOT MATCH THE HASHES"):
            fetch(replace(WHEEL, sha256="0" * 64), tmp_path)
    except IndexUnreachableError as error:
        pytest.skip(str(error))
    assert not list(tmp_path.glob("*.whl"))
