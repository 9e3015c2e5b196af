"""``convert --format``, and ``verify`` of the files that it wrote, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trtcross

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


def test_a_folder_is_written_and_verified(trtcross: Trtcross, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    done = trtcross("convert", SCHEMA1 / "static.pt2", "--format", "engine", "-o", out, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["format"], document["set_up"]) == (0, "engine", [])
    assert str(out / "model.engine") in document["files"]
    verified = trtcross("verify", out, "--json")
    assert json.loads(verified.stdout)["manifest_sha256"] == document["manifest_sha256"]
    (out / "model.engine").write_bytes(b"another")
    assert trtcross("verify", out).returncode == 4


def test_an_onnx_file_is_written_and_verified(trtcross: Trtcross, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "model.onnx"
    done = trtcross("convert", SCHEMA1 / "static.pt2", "--format", "onnx", "-o", out, "--engines", "beside")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.4.0" in done.stdout + done.stderr
    verified = trtcross("verify", out)
    assert verified.returncode == 0
    assert "every byte of 2 file(s)" in verified.stdout + verified.stderr
    report = trtcross("verify", out, "--html", tmp_path / "report.html")
    assert report.returncode == 2


def test_what_belongs_to_artifacts_alone_is_refused(trtcross: Trtcross, tmp_path: Path) -> None:
    arguments = ("convert", SCHEMA1 / "static.pt2", "--format", "engine", "-o", tmp_path / "out")
    done = trtcross(*arguments, "--target", "linux-x86_64")
    assert done.returncode == 2
    assert "--target applies only to artifacts" in done.stderr
    assert trtcross(*arguments, "--engines", "beside").returncode == 2
    assert list(tmp_path.iterdir()) == []
