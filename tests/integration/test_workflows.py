"""The commands of the workflow run here: they plan, build, verify and report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

SPEC = """
version = 1
precisions = ["fp32", "fp16"]
[models.tiny]
model = "tests.models:tiny"
[[targets]]
platform = "windows-x86_64"
backend = "tensorrt-rtx"
"""


def test_the_users_workflow_plans_builds_and_reports(tmp_path: Path) -> None:
    pytest.importorskip("ruamel.yaml")
    (tmp_path / "tiny.toml").write_text(SPEC)
    command: list[Any] = [sys.executable, "ci/run-legs", "--workflow", "ci/templates/trtcross.yml"]
    command += ["--keep", tmp_path / "kept"]
    chosen: list[Any] = ["--spec", tmp_path / "tiny.toml", "--job", "plan", "--job", "build", "--job", "report"]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "kept" / "matrix-run"
    cells = [json.loads(path.read_text()) for path in (run / "cells").iterdir()]
    assert [cell["state"] for cell in cells] == ["passed", "passed"]
    assert sorted(path.name.split("-")[1] for path in (run / "artifacts").iterdir()) == ["fp16", "fp32"]
    assert (run / "report.html").exists() and (run / "junit.xml").exists()
    assert "tiny" in (tmp_path / "kept" / "summary.md").read_text()
