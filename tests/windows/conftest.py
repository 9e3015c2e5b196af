"""Fixtures for tests in a Python of Windows. ci/windows/test.sh runs them in a real one, under Wine, from our wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import Trtcross

HERE = Path(__file__).parent
NO_ARTIFACTS = "TRTCROSS_ARTIFACTS names no folder with *.pt2 files that Linux has built"


def artifacts() -> list[Path]:
    """Returns the artifacts that were built on Linux, the smallest first."""
    folder = os.environ.get("TRTCROSS_ARTIFACTS")
    return sorted(Path(folder).glob("*.pt2"), key=lambda path: path.stat().st_size) if folder else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.windows)
            if sys.platform != "win32":
                item.add_marker(pytest.mark.skip(reason="not Windows: ci/windows/test.sh runs these in one"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "each_artifact" in metafunc.fixturenames:
        found = [pytest.param(path, id=path.stem) for path in artifacts()]
        none = pytest.param(None, id="none", marks=pytest.mark.skip(reason=NO_ARTIFACTS))
        metafunc.parametrize("each_artifact", found or [none])


@pytest.fixture(scope="session")
def trtcross() -> Trtcross:
    """Runs the ``trtcross.exe`` that pip installed."""
    program = Path(sysconfig.get_path("scripts")) / "trtcross.exe"

    def run(
        *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding=(env or {}).get("PYTHONIOENCODING"),
            errors="replace",
            check=False,
            timeout=timeout,
        )

    return run


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A copy of the smallest artifact."""
    if not (found := artifacts()):
        pytest.skip(NO_ARTIFACTS)
    return Path(shutil.copy(found[0], tmp_path / "artifact.pt2"))
