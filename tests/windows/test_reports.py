"""Reports and `select` on Windows, with artifacts that were built on Linux."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.conftest import Trtcross


def test_reports_of_a_sound_and_a_damaged_artifact(trtcross: Trtcross, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r\u00e9ports with spaces"
    folder.mkdir()
    html, junit = folder / "r.html", folder / "r.xml"
    done = trtcross("verify", artifact, "--level", "structure", "--html", html, "--junit", junit)
    assert done.returncode == 0, done.stderr
    text = html.read_bytes().decode("utf-8")
    assert "Verified: integrity, structure" in text and "windows-x86_64" in text and "\r" not in text
    assert ElementTree.parse(junit).getroot().get("failures") == "0"
    artifact.write_bytes(artifact.read_bytes()[:-100])
    assert trtcross("verify", artifact, "--html", html, "--junit", junit).returncode == 4
    assert "Damaged or malformed" in html.read_text("utf-8")
    assert ElementTree.parse(junit).getroot().get("failures") == "1"
    assert {path.name for path in folder.iterdir()} == {"r.html", "r.xml"}


def test_what_was_written_before_loading_is_replaced(trtcross: Trtcross, artifact: Path, tmp_path: Path) -> None:
    """Without a GPU the level fails, and the report no longer states that the process ended in it."""
    html = tmp_path / "r.html"
    done = trtcross("verify", artifact, "--level", "load", "--html", html)
    assert done.returncode in (3, 8), done.stderr
    text = html.read_text("utf-8")
    assert "Not verified" in text and "Not finished" not in text


def test_select_says_why_none_fits(trtcross: Trtcross, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(artifact, folder / "sound.pt2")
    (folder / "foreign.PT2").write_text("no artifact")
    done = trtcross("select", folder, "--json")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    rows = {Path(row["artifact"]).name: row for row in document["artifacts"]}
    assert document["best"] is None and rows.keys() == {"sound.pt2", "foreign.PT2"}
    assert rows["foreign.PT2"]["outcome"] == "refused" and rows["sound.pt2"]["outcome"] != "refused"
    assert any(reason.startswith("torch-cuda not met") for reason in rows["sound.pt2"]["reasons"])
