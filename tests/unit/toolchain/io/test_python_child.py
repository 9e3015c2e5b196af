"""A child runs our modules, whatever is in the current folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from toolchain.io.python_child import python_child


@pytest.mark.parametrize("name", ["toolchain", "select", "runpy", "click", "pathlib", "toolchain/__init__"])
def test_a_file_of_the_current_folder_takes_no_modules_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "toolchain").mkdir()
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')")
    command = python_child("toolchain", "inspect", "none.pt2")
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "none.pt2" in result.stderr, result.stderr
