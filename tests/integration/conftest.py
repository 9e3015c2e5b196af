"""Fixtures for integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trtcross
from tests.integration import warm


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary folders; the models of tests and benchmarks can be imported from there."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(ROOT)
    return folder


@pytest.fixture(scope="session")
def warm_trtcross() -> Trtcross:
    """The ``trtcross`` command in a process that has imported what a build needs (:mod:`tests.integration.warm`)."""
    return lambda *arguments, cwd=ROOT: warm.trtcross(*arguments, cwd=cwd)


@pytest.fixture
def warm_builds() -> Iterator[None]:
    """What the library builds, it builds in such a process."""
    with warm.warm_builds():
        yield
