"""Fixtures for every test, and an empty build cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test uses the user's build cache; a test that needs a cache makes its own.
os.environ["TRTCROSS_CACHE"] = str(Path(tempfile.gettempdir()) / "trtcross-tests-keep-no-cache")
os.environ["TRTCROSS_CACHE_SIZE"] = "0"

Trtcross = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def trtcross() -> Trtcross:
    """Runs the ``trtcross`` command in a process of its own."""

    def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolchain", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)

    return run
