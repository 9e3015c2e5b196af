"""Fixtures for every test, and an empty build cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group whose processes may have 700 MiB of memory."""
    groups = Path("/sys/fs/cgroup")
    first = groups / "memory" / f"trtcross-{os.getpid()}", "memory.limit_in_bytes"
    second = groups / f"trtcross-{os.getpid()}", "memory.max"
    folder, limit = first if (groups / "memory").is_dir() else second
    try:
        folder.mkdir()
        (folder / limit).write_text(str(700 * 2**20))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def in_group(folder: Path, *command: str) -> list[str]:
    """Returns a command that runs another one in a control group, such as that of ``memory_group``."""
    return ["sh", "-c", 'echo $$ > $0/cgroup.procs && exec "$@"', str(folder), *command]
