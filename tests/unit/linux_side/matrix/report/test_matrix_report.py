"""The matrix's report: what it shows to people and CI, and that texts of a spec or an artifact stay plain text."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from linux_side.matrix.records import RunFolder
from linux_side.matrix.report.change import changes
from linux_side.matrix.report.markdown import escape
from linux_side.matrix.spec.cells import Cell, cells_of
from linux_side.matrix.spec.spec import load_spec
from tests.unit.matrix_runs import finish
from toolchain.cli.main import cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a matrix is built on Linux")

SPEC = """
version = 1
precisions = ["fp32", "fp16"]
[models.tiny]
model = "tests.models:tiny"
[models.other]
model = "tests.models:failing"
precisions = ["fp32"]
[[targets]]
[[exclude]]
select = "tiny-fp16-*"
reason = "<b>not & now</b> | `x`"
"""
EVIL = "<script>alert(1)</script> | [click](javascript:alert(2)) `x` \x1b[31m \u202e"


class Matrix:
    def __init__(self, folder: Path) -> None:
        self.spec = folder / "m.toml"
        self.spec.write_text(SPEC)
        self.folder = RunFolder(folder / "run")
        self.passing, self.excluded, self.failing = cells_of(load_spec(self.spec))

    def report(self, *arguments: object) -> dict[str, Any]:
        command = ["matrix", "report", str(self.spec), "--out", str(self.folder.path), "--json", *map(str, arguments)]
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    def page(self) -> str:
        return (self.folder.path / "report.html").read_text(encoding="utf-8")

    def leg(self, name: str, cell: Cell, **document: Any) -> None:
        path = self.folder.path / "legs" / name / f"{cell.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"version": 1, "ok": True, **document}))


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    made = Matrix(tmp_path)
    finish(made.folder, made.passing)
    finish(made.folder, made.failing, state="failed")
    made.folder.log(made.failing.id).write_text("the last words\n")
    return made


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_says_how_it_went(matrix: Matrix) -> None:
    matrix.report()
    page = matrix.page()
    for words in ("1 of 2 cells passed", "1 failed", "excluded", "the last words", "no luck", "trtcross build m:a"):
        assert words in page


def test_of_a_long_log_the_end_is_shown(matrix: Matrix) -> None:
    log = matrix.folder.log(matrix.failing.id)
    log.write_text("".join(f"line {index} {'x' * 200}\n" for index in range(1000)) + "the very last words\n\n")
    matrix.report()
    assert "the very last words" in matrix.page()
    assert "line 5 " not in matrix.page()


def test_every_cell_of_the_grid_leads_to_its_details(matrix: Matrix) -> None:
    matrix.report()
    seen = Tags(matrix.page()).seen
    links = {str(attributes["href"]) for tag, attributes in seen if tag == "a"}
    anchors = {f"#{attributes['id']}" for _, attributes in seen if attributes.get("id")}
    assert len(links) == 3
    assert links <= anchors


def test_the_page_needs_nothing_but_itself(matrix: Matrix) -> None:
    matrix.report()
    for tag, attributes in Tags(matrix.page()).seen:
        assert tag not in ("link", "img", "iframe")
        assert not {"src", "onclick", "style"} & set(attributes)
    assert "http://" not in matrix.page()


def test_hostile_texts_are_only_text(matrix: Matrix) -> None:
    error = {"kind": "BuildFailedError", "problem": EVIL, "remedy": EVIL, "where": EVIL, "exit_code": 7}
    finish(matrix.folder, matrix.failing, state="failed", error=error, host=EVIL, reproduce=[EVIL])
    matrix.folder.log(matrix.failing.id).write_text(EVIL)
    matrix.leg(EVIL.partition("/")[0], matrix.passing, levels=[{"level": EVIL, "passed": True, "seconds": EVIL}])
    junit, markdown = matrix.spec.with_suffix(".xml"), matrix.spec.with_suffix(".md")
    matrix.report("--junit", junit, "--markdown", markdown)
    assert len([tag for tag, _ in Tags(matrix.page()).seen if tag == "script"]) == 1
    for text in (matrix.page(), junit.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")):
        assert "<script>alert" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    ElementTree.parse(junit)
    assert "[click](javascript" not in markdown.read_text(encoding="utf-8")


def test_markdown_is_one_row_a_cell_whatever_is_in_it() -> None:
    assert escape("a|b\n<c>") == r"a\|b \<c\>"


def test_junit_has_a_suite_a_cell_and_a_case_a_level(matrix: Matrix) -> None:
    path = matrix.spec.with_suffix(".xml")
    matrix.leg("windows", matrix.passing, levels=[{"level": "structure", "passed": True, "seconds": 1.0}])
    matrix.report("--junit", path)
    root = ElementTree.parse(path).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("5", "1", "1")
    suites = {suite.get("name"): suite for suite in root}
    assert [case.get("name") for case in suites[matrix.passing.id]][-3:] == ["build", "integrity", "windows: structure"]
    failure = suites[matrix.failing.id].find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "no luck"


def test_what_other_machines_found_is_shown(matrix: Matrix) -> None:
    outputs = [{"relative_l2": 1.25e-4}, {"relative_l2": 3e-5}]
    matrix.leg("box", matrix.passing, levels=[{"level": "numbers", "passed": True, "details": {"outputs": outputs}}])
    bench = matrix.folder.path / "legs" / "box" / f"{matrix.passing.id}.bench.json"
    bench.write_text(json.dumps({"ok": True, "latency": {"median": 0.328}}))
    cell = matrix.report()["snapshot"]["cells"][matrix.passing.id]
    assert (cell["error"], cell["latency"], cell["coverage"]) == (1.25e-4, 0.328, 75.0)
    assert "0.328 ms" in matrix.page()


def test_a_failed_leg_fails_the_cell(matrix: Matrix) -> None:
    error = {"kind": "WrongNumbersError", "problem": "off by one", "exit_code": 6}
    matrix.leg("box", matrix.passing, ok=False, error=error)
    assert matrix.report()["snapshot"]["cells"][matrix.passing.id]["state"] == "failed"
    assert "box: off by one" in matrix.page()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"ok": true, "levels": [3, {}], "latency": 5}', '{"ok": true, "levels": 1}']
)
def test_a_leg_of_nonsense_does_not_end_the_report(matrix: Matrix, text: str) -> None:
    matrix.leg("box", matrix.passing)
    (matrix.folder.path / "legs" / "box" / f"{matrix.passing.id}.json").write_text(text)
    matrix.report("--junit", matrix.spec.with_suffix(".xml"), "--markdown", matrix.spec.with_suffix(".md"))


def test_a_cell_of_an_older_spec_is_not_called_passed(matrix: Matrix) -> None:
    finish(matrix.folder, matrix.passing, spec_digest="0" * 64)
    assert matrix.report()["snapshot"]["cells"][matrix.passing.id]["state"] == "stale"


def test_a_report_can_be_made_where_nothing_can_be_built(matrix: Matrix) -> None:
    """As in the last job of a workflow, which has only the base packages, other versions, and no source."""
    finish(matrix.folder, matrix.passing, digest="0" * 64)
    assert matrix.report()["snapshot"]["cells"][matrix.passing.id]["state"] == "passed"


def test_what_changed_since_the_last_report(matrix: Matrix) -> None:
    assert matrix.report()["changes"] == []
    assert "first report" in matrix.page()
    finish(matrix.folder, matrix.passing, content=b"a longer artifact", build_seconds=2.1)
    finish(matrix.folder, matrix.failing)
    found = {(item["cell"], item["what"]): item for item in matrix.report()["changes"]}
    assert found[matrix.passing.id, "size"]["after"] == "17 B (+112.5 %)"
    assert found[matrix.failing.id, "state"]["before"] == "failed"
    assert (matrix.passing.id, "build time") not in found
    again = matrix.report()["changes"]
    assert len(again) == len(found), "a second report of the same run still says what changed"


def test_a_baseline_may_be_named(matrix: Matrix) -> None:
    matrix.report()
    baseline = matrix.spec.with_name("old.json")
    baseline.write_text((matrix.folder.path / "report.json").read_text())
    finish(matrix.folder, matrix.failing)
    assert len(matrix.report("--baseline", baseline)["changes"]) > 0
    result = CliRunner().invoke(cli, ["matrix", "report", str(matrix.spec), "--baseline", str(matrix.spec)])
    assert result.exit_code == 2


def test_changes_name_cells_that_are_new_or_gone() -> None:
    cell = {"state": "passed", "size": 1, "seconds": None, "coverage": None, "error": None, "latency": None}
    found = changes({"cells": {"old": cell}}, {"cells": {"new": cell}})
    assert [(item.cell, item.after) for item in found] == [("new", "new"), ("old", "gone")]
