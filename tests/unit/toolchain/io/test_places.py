"""A command never writes to a file that it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.handmade import Handmade
from toolchain.cli.main import cli
from toolchain.errors import UsageError
from toolchain.io.places import require_own_place

WAYS = ("same", "relative", "dots", "symlink", "hard link", "folder link")


def another_path(way: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns another path of the same file, which ends in .pt2."""
    other = path.with_name("other.pt2")
    if way == "relative":
        monkeypatch.chdir(path.parent)
        return Path(path.name)
    if way == "dots":
        return path.parent / ".." / path.parent.name / path.name
    if way == "symlink":
        return linked(other, path)
    if way == "folder link":
        return linked(path.parent / "folder", path.parent) / path.name
    if way == "hard link":
        os.link(path, other)
        return other
    return path


def linked(link: Path, target: Path) -> Path:
    """Makes a symbolic link, or skips the test: Windows needs a right for it, and Wine silently makes none."""
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    if not link.exists():
        pytest.skip("no symbolic links here: Wine makes none")
    return link


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Handmade().write(tmp_path / "a.pt2")


def refused(*arguments: object) -> bool:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    return result.exit_code == 2 and "would replace another file" in result.stderr


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verb", ["build", "convert", "run", "run input", "verify", "bench", "bench input"])
def test_no_verb_writes_onto_what_it_reads(
    verb: str, way: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = another_path(way, source, monkeypatch)
    before = source.read_bytes()
    commands: dict[str, list[object]] = {
        "build": ["build", source, "-o", out],
        "convert": ["convert", source, "--target", "linux-x86_64", "-o", out],
        "run": ["run", source, "--input", tmp_path / "x.safetensors", "--output", out],
        "run input": ["run", tmp_path / "artifact.pt2", "--input", source, "--output", out],
        "verify": ["verify", source, "--html", out],
        "bench": ["bench", source, "--html", out],
        "bench input": ["bench", tmp_path / "artifact.pt2", "--input", source, "--html", out],
    }
    assert refused(*commands[verb])
    assert source.read_bytes() == before


def test_a_report_of_a_matrix_never_replaces_its_spec(tmp_path: Path) -> None:
    spec = tmp_path / "matrix.toml"
    spec.write_text("[matrix]\n")
    assert refused("matrix", "report", spec, "--junit", spec)
    assert refused("matrix", "report", spec, "--html", tmp_path / "r", "--markdown", tmp_path / "r")


def test_another_file_of_the_same_bytes_may_be_written(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt2"
    copy.write_bytes(source.read_bytes())
    require_own_place(copy, source, None, tmp_path / "missing", where="-o")


def test_a_file_that_does_not_exist_yet_is_compared_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="new"):
        require_own_place(tmp_path / "new", tmp_path / "." / "new", where="--html")
