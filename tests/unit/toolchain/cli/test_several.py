"""Several artifacts for one inspect, check or verify, by name and by pattern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.handmade import Handmade, plan
from toolchain.cli.main import cli

VERBS = {"inspect": [], "check": [], "verify": ["--level", "structure"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Handmade(engines=[plan(name.encode())]).write(tmp_path / f"{name}.pt2")
    return tmp_path


def run(verb: str, *words: object) -> Result:
    return CliRunner().invoke(cli, [verb, *VERBS[verb], *map(str, words)])


def document(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("verb", VERBS)
def test_each_is_reported_and_has_the_document_that_it_has_alone(verb: str, folder: Path) -> None:
    alone = [document(run(verb, folder / f"{name}.pt2", "--json")) for name in ("a", "b")]
    together = document(run(verb, folder / "a.pt2", folder / "b.pt2", "--json"))
    assert [part["artifact"] for part in together["artifacts"]] == [part["artifact"] for part in alone]
    assert [part.keys() for part in together["artifacts"]] == [part.keys() for part in alone]
    assert "artifacts" not in alone[0] and together["verb"] == verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_pattern_is_expanded_and_nothing_comes_twice(verb: str, folder: Path) -> None:
    parts = document(run(verb, folder / "*.pt2", folder / "a.pt2", "--json"))["artifacts"]
    assert [Path(part["artifact"]).name for part in parts] == ["a.pt2", "b.pt2"]
    (folder / "b.pt2").unlink()
    assert document(run(verb, folder / "*.pt2", "--json"))["artifact"] == str(folder / "a.pt2")
    nothing = run(verb, folder / "*.onnx")
    assert nothing.exit_code == 2 and "no file matches" in nothing.output


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_a_failure_keeps_none_from_being_looked_at_and_is_the_outcome(verb: str, folder: Path) -> None:
    (folder / "a.pt2").write_bytes((folder / "a.pt2").read_bytes()[:-9])
    result = run(verb, folder / "a.pt2", folder / "b.pt2", "--json")
    assert result.exit_code == 4 and "1 of 2 artifacts failed" in result.stderr
    parts = document(result)["artifacts"]
    assert [part["ok"] for part in parts] == [False, True] and parts[0]["error"]["kind"] == "MalformedArtifactError"
    assert not document(result)["ok"]


def test_a_report_is_of_one_artifact(folder: Path) -> None:
    result = run("verify", folder / "*.pt2", "--html", folder / "page.html")
    assert result.exit_code == 2 and "a report is of one artifact" in result.output
    assert not (folder / "page.html").exists()
    assert run("verify", folder / "a*.pt2", "--html", folder / "page.html").exit_code == 0
