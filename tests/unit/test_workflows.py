"""The workflows are valid and pinned, have the least rights, and consist of steps that also run here."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.handmade import Handmade

if not (ROOT / ".github").is_dir():
    pytest.skip("the workflows are not here", allow_module_level=True)

WORKFLOWS = [ROOT / ".github/workflows/ci.yml", ROOT / "ci/templates/trtcross.yml"]
# These commits had these tags in the actions' repositories on 23 November 2026.
PINNED = {
    "actions/checkout": ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    "actions/setup-python": ("5fda3b95a4ea91299a34e894583c3862153e4b97", "v7.0.0"),
    "actions/upload-artifact": ("bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
    "actions/download-artifact": ("3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
}
USES = re.compile(r"uses: (\S+)@(\S+) # (\S+)$", re.M)

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, Any]:
    yaml = pytest.importorskip("ruamel.yaml")
    found: dict[str, Any] = yaml.YAML(typ="safe").load(path.read_text(encoding="utf-8"))["jobs"]
    return found


@each_workflow
def test_it_is_valid(path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@each_workflow
def test_every_action_is_pinned_to_a_commit_that_was_looked_up(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = USES.findall(text)
    assert len(found) == text.count("uses:")
    for action, commit, tag in found:
        assert PINNED[action] == (commit, tag)


@each_workflow
def test_it_may_read_the_code_and_nothing_else(path: Path) -> None:
    yaml = pytest.importorskip("ruamel.yaml")
    document = yaml.YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    assert not re.search(r"\bsecrets\b|pull_request_target", path.read_text(encoding="utf-8"))
    for job in document["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"] == {"persist-credentials": False}


@each_workflow
def test_no_strangers_code_reaches_a_self_hosted_runner(path: Path) -> None:
    hosted = [job for job in jobs(path).values() if "self-hosted" in job["runs-on"]]
    assert hosted
    for job in hosted:
        assert "github.event_name == 'push'" in job["if"] or "github.event_name != 'pull_request'" in job["if"]


@each_workflow
def test_windows_is_tried_with_two_pythons(path: Path) -> None:
    job = jobs(path)["windows"]
    assert job["runs-on"] == "windows-latest" and len(job["strategy"]["matrix"]["python"]) == 2


@each_workflow
def test_every_step_is_a_command_that_runs_here_too(path: Path) -> None:
    """No expression is inserted into a shell command, and `ci/leg.py` accepts each of its command lines."""
    for job in jobs(path).values():
        for step in job["steps"]:
            if "run" not in step:
                continue
            assert "${{" not in step["run"], step["run"]
            program, *arguments = shlex.split(step["run"])
            if (program, arguments[0]) == ("python", "ci/leg.py"):
                done = leg(*arguments[1:], "--help")
                assert done.returncode == 0 and "usage" in done.stdout, done.stderr
            else:
                assert step["run"].startswith(("make ", "python -m pytest tests/"))


def leg(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "ci/leg.py", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_the_verifying_leg_keeps_the_documents(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    Handmade().write(tmp_path / "artifacts" / "good.pt2")
    done = leg("verify", tmp_path / "artifacts", tmp_path / "legs")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "legs/good.json").read_text())["ok"]
    preflight = json.loads((tmp_path / "legs/preflight/good.json").read_text())
    assert preflight["error"]["kind"] == "IncompatibleError" and preflight["requirements"]
    (tmp_path / "artifacts" / "bad.pt2").write_text("no artifact")
    assert leg("verify", tmp_path / "artifacts", tmp_path / "legs").returncode == 1
    assert json.loads((tmp_path / "legs/bad.json").read_text())["error"]["exit_code"] == 4


def test_nothing_to_verify_is_a_failure(tmp_path: Path) -> None:
    done = leg("verify", tmp_path, tmp_path / "legs")
    assert done.returncode == 1 and "no artifacts" in done.stderr


def test_two_wheels_are_one_too_many(tmp_path: Path) -> None:
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / f"trtcross-{version}-py3-none-any.whl").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'ci')!r}); import leg; "
        "leg.run = lambda *words: print(*words); leg.install_trtcross(['producer'])"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TRTCROSS": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "2 wheels" in done.stderr
    (tmp_path / "trtcross-0.2.0-py3-none-any.whl").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("trtcross-0.1.0-py3-none-any.whl[producer]")
