"""Paths of Windows: folders of any name, other spellings, drives and reserved names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trtcross

LONG = "/".join(["a-folder-with-a-rather-long-name-" + "n" * 60] * 4)


def reads(trtcross: Trtcross, path: object, cwd: Path | None = None) -> None:
    result = trtcross("verify", path, "--level", "structure", "--json", cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["artifact"] == str(path)


@pytest.mark.parametrize(
    "folder",
    ["with two spaces", "ä ö ü", "日本語", "emoji 😀", "percent %TEMP% & (x86) ^!", "a.b.c", LONG],
    ids=["spaces", "latin", "japanese", "emoji", "shell", "dots", "over-260"],
)
def test_reading_and_writing_in_folders_of_any_name(trtcross: Trtcross, artifact: Path, folder: str) -> None:
    place = artifact.parent / folder
    place.mkdir(parents=True)
    moved, out = Path(shutil.move(artifact, place / "ein Modell.pt2")), place / "out.pt2"
    if folder == LONG:
        assert len(str(moved)) > 260
    reads(trtcross, moved)
    result = trtcross("convert", moved, "--target", "linux-x86_64", "-o", out)
    assert result.returncode == 0, result.stderr
    reads(trtcross, out)
    assert sorted(path.name for path in place.iterdir()) == ["ein Modell.pt2", "out.pt2"]


def test_the_same_file_by_other_spellings(trtcross: Trtcross, artifact: Path) -> None:
    drive, folder = artifact.drive, artifact.parent
    spellings = [
        artifact.name,
        f"{drive}{artifact.name}",  # relative to the drive's working directory
        f".\\{artifact.name}",
        f"..\\{folder.name}\\{artifact.name}",
        str(artifact).removeprefix(drive),  # on the current drive
        artifact.as_posix(),
        f"\\\\?\\{artifact}",
        str(artifact).upper(),
    ]
    for spelling in spellings:
        reads(trtcross, spelling, cwd=folder)


def test_output_relative_to_the_drive(trtcross: Trtcross, artifact: Path) -> None:
    out = f"{artifact.drive}out.pt2"
    result = trtcross("convert", artifact.name, "--target", "linux-x86_64", "-o", out, cwd=artifact.parent)
    assert result.returncode == 0, result.stderr
    assert (artifact.parent / "out.pt2").is_file()


@pytest.mark.parametrize("path", ["\\\\no-such-server\\share\\model.pt2", "Q:\\model.pt2", "\\\\?\\Q:\\model.pt2"])
def test_places_that_are_not_there(trtcross: Trtcross, artifact: Path, path: str) -> None:
    read = trtcross("inspect", path)
    assert read.returncode == 2 and "cannot be opened" in read.stderr
    written = trtcross("convert", artifact, "--target", "linux-x86_64", "-o", path)
    assert written.returncode == 7 and "cannot be written" in written.stderr


@pytest.mark.parametrize("name", ["nul", "NUL.pt2", "con", "aux", "com1", "a<b.pt2", "a|b.pt2", "a?.pt2"])
def test_names_that_windows_keeps_for_itself(trtcross: Trtcross, artifact: Path, name: str) -> None:
    """Devices can be opened but are no artifacts; no file can have the other names."""
    read = trtcross("inspect", name, cwd=artifact.parent)
    assert read.returncode in (2, 4), read.stderr
    written = trtcross("convert", artifact, "--target", "linux-x86_64", "-o", name, cwd=artifact.parent)
    assert written.returncode in (2, 7), f"{written.returncode}: {written.stderr or written.stdout}"
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]
