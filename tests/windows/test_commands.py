"""The verbs of a consumer's machine, with artifacts that were built on Linux."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.conftest import Trtcross
from toolchain.artifact import open_artifact


def document(result: CompletedProcess[str], code: int) -> dict[str, Any]:
    """Returns the only document on stdout of a run, which must have the given exit code."""
    assert result.returncode == code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["ok"] is (code == 0)
    return found


def test_inspect(trtcross: Trtcross, each_artifact: Path) -> None:
    found = document(trtcross("inspect", each_artifact, "--digests", "--json"), 0)
    assert found["digests_checked"] and found["plan_headers_agree"]
    assert found["artifact"] == str(each_artifact) and found["size"] == each_artifact.stat().st_size
    assert found["manifest"]["target"]["platform"] == "windows-x86_64"


def test_check_says_what_is_missing_and_what_to_do(trtcross: Trtcross, each_artifact: Path) -> None:
    found = document(trtcross("check", each_artifact, "--json"), 3)
    state = {item["name"]: item["state"] for item in found["requirements"]}
    assert {state[name] for name in ("platform", "disk", "visual-c++")} == {"met"}
    assert "met" not in {state[name] for name in ("driver", "gpu", "torch-cuda", "torch-tensorrt", "runtime")}
    assert all(item["remedy"] for item in found["requirements"] if item["state"] == "not met")


def test_verify_structure(trtcross: Trtcross, each_artifact: Path) -> None:
    found = document(trtcross("verify", each_artifact, "--level", "structure", "--json"), 0)
    assert [(level["level"], level["passed"]) for level in found["levels"]] == [
        ("integrity", True),
        ("structure", True),
    ]


def test_verify_load_is_refused_with_what_to_do(trtcross: Trtcross, artifact: Path) -> None:
    """The reason is the missing GPU, with torch or without."""
    result = trtcross("verify", artifact, "--level", "load", "--json")
    assert result.returncode in (3, 8), result.stderr
    assert document(result, result.returncode)["error"]["remedy"]


def test_doctor(trtcross: Trtcross) -> None:
    found = document(trtcross("doctor", "--json"), 0)
    assert found["machine"]["platform"] == "windows-x86_64"
    assert not any(ability["able"] for ability in found["abilities"].values())
    here = [item for ability in found["abilities"].values() for item in ability["requirements"]]
    assert all(item["remedy"] for item in here if item["state"] == "not met")


def test_convert_there_and_back_gives_the_same_files(trtcross: Trtcross, each_artifact: Path, tmp_path: Path) -> None:
    """Windows writes the same bytes as Linux: no line end, path or default encoding of Windows is in them."""
    there, back = tmp_path / "there.pt2", tmp_path / "back.pt2"
    document(trtcross("convert", each_artifact, "--target", "linux-x86_64", "-o", there, "--json"), 0)
    document(trtcross("convert", there, "--target", "windows-x86_64", "-o", back, "--json"), 0)
    document(trtcross("verify", there, "--level", "structure", "--json"), 0)
    with open_artifact(each_artifact) as first, open_artifact(back) as second:
        assert second.manifest.files == first.manifest.files
        assert second.manifest.engines == first.manifest.engines
        assert b"\r" not in second.container.read("extra/trtcross/manifest.json")


def test_no_artifact_is_converted_onto_itself(trtcross: Trtcross, artifact: Path) -> None:
    """A path that differs only in case is also refused, because Windows does not distinguish case."""
    before = artifact.read_bytes()
    for out in (artifact, artifact.with_name(artifact.name.upper())):
        document(trtcross("convert", artifact, "--target", "linux-x86_64", "-o", out, "--json"), 2)
    assert artifact.read_bytes() == before


def test_what_is_wrong_has_its_exit_code(trtcross: Trtcross, artifact: Path, tmp_path: Path) -> None:
    document(trtcross("inspect", tmp_path / "none.pt2", "--json"), 2)
    document(trtcross("inspect", tmp_path, "--json"), 2)
    artifact.write_bytes(artifact.read_bytes()[:-100])
    assert document(trtcross("inspect", artifact, "--json"), 4)["error"]["kind"] == "MalformedArtifactError"
