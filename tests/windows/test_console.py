"""Output to a legacy console or a redirection: no code page breaks it, and the document is the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trtcross


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "ascii", "utf-8"])
def test_no_code_page_turns_a_report_into_a_crash(trtcross: Trtcross, artifact: Path, encoding: str) -> None:
    moved = Path(shutil.move(artifact, artifact.with_name("Größe 日本 😀.pt2")))
    env = {"PYTHONIOENCODING": encoding}
    for verb in (["inspect"], ["verify", "--level", "structure"]):
        result = trtcross(*verb, moved, env=env)
        assert result.returncode == 0, result.stderr
    missing = trtcross("inspect", moved.with_name("日本.pt2"), env=env)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


@pytest.mark.parametrize("encoding", ["cp437", "utf-8"])
def test_the_document_is_the_same_for_every_code_page(trtcross: Trtcross, artifact: Path, encoding: str) -> None:
    moved = Path(shutil.move(artifact, artifact.with_name("Größe 日本 😀.pt2")))
    result = trtcross("inspect", moved, "--json", env={"PYTHONIOENCODING": encoding})
    assert json.loads(result.stdout)["artifact"] == str(moved)


def test_the_output_redirected_with_no_settings_at_all(trtcross: Trtcross, artifact: Path) -> None:
    """A pipe has the system's code page and Windows' line ends."""
    moved = Path(shutil.move(artifact, artifact.with_name("Größe 日本 😀.pt2")))
    result = trtcross("inspect", moved, "--json")
    assert json.loads(result.stdout)["artifact"] == str(moved)
    assert trtcross("inspect", moved).returncode == 0
