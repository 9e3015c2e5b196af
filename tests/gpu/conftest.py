"""Everything here needs an NVIDIA GPU, and artifacts that were built on a machine without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ARTIFACTS = Path(os.environ.get("TRTCROSS_ARTIFACTS", ".artifacts"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="NO GPU HERE: nothing in tests/gpu was run"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "windows_artifact" in metafunc.fixturenames:
        found = sorted(ARTIFACTS.glob("*.pt2"))
        metafunc.parametrize("windows_artifact", found, ids=[path.stem for path in found])


@pytest.fixture
def artifact(windows_artifact: Path, tmp_path: Path) -> Path:
    """The artifact as this host's own: the same engine bytes as Windows gets."""
    from toolchain import open_artifact
    from toolchain.convert import convert_artifact
    from toolchain.targets import Platform

    out = tmp_path / "linux.pt2"
    with open_artifact(windows_artifact) as opened:
        convert_artifact(opened, out, Platform.LINUX_X86_64)
    return out
