"""``module:factory``: found in the current folder, and nothing of the process is changed for good."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import call_factory

MODULE = """
import sys
import helper_of_{name}
made = 1
def factory():
    import late_helper_of_{name}
    return 42
def broken():
    raise KeyError("x")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the current folder, imported by no other test, and two that it imports."""
    name = f"made_for_{request.node.name}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    (tmp_path / f"helper_of_{name}.py").write_text("")
    (tmp_path / f"late_helper_of_{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_of_the_current_folder_leaves_the_path_as_it_was(module: str) -> None:
    before = list(sys.path)
    assert call_factory(f"{module}:factory") == 42
    assert call_factory(f"{module}:factory") == 42
    assert sys.path == before


def test_one_that_fails_does_so_too(module: str) -> None:
    before = list(sys.path)
    with pytest.raises(BuildFailedError, match="the factory raised KeyError"):
        call_factory(f"{module}:broken")
    for name in (f"{module}:none", f"{module}:made", "no_such_module:factory", ":factory"):
        with pytest.raises(UsageError) as caught:
            call_factory(name, where="--original")
        assert caught.value.where == "--original"
    assert sys.path == before
