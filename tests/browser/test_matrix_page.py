"""The page of `matrix report` in a real browser: its grid leads to the details, and it loads and runs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.spec import load_spec
from tests.browser.conftest import HOSTILE
from tests.browser.test_verify_page import CONTRASTS, shown
from tests.unit.matrix_runs import finish
from toolchain.cli.main import cli

pytestmark = pytest.mark.slow

SPEC = f"""
version = 1
precisions = ["fp32", "fp16", "bf16"]
[models.resnet18]
model = "tests.models:tiny"
[models.a_model_whose_name_is_longer_than_those_of_the_others]
model = "tests.models:failing"
[[targets]]
version = "1.6"
[[targets]]
platform = "linux-x86_64"
gpus = ["sm_86", "sm_89"]
[[exclude]]
select = "*-bf16-linux*"
reason = {json.dumps(HOSTILE)}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with cells that passed, failed, were excluded or never run, and with hostile texts in every place."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "m.toml").write_text(SPEC)
    run = RunFolder(folder / "run")
    cells = [cell for cell in cells_of(load_spec(folder / "m.toml")) if not cell.excluded]
    error = {"kind": "BuildFailedError", "problem": HOSTILE, "remedy": HOSTILE, "where": HOSTILE, "exit_code": 7}
    for cell in cells[:5]:
        finish(run, cell, host=HOSTILE)
    assert report(folder) == 0
    finish(run, cells[0], content=b"a longer artifact")
    finish(run, cells[5], state="failed", error=error, reproduce=[HOSTILE])
    run.log(cells[5].id).write_text(HOSTILE)
    assert report(folder) == 0
    return folder / "run" / "report.html"


def report(folder: Path) -> int:
    return CliRunner().invoke(cli, ["matrix", "report", str(folder / "m.toml"), "--out", str(folder / "run")]).exit_code


def test_a_click_on_a_cell_shows_its_details(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, complaints):
        assert tab.locator("details[open]").count() == 0
        tab.locator("table.grid td.bad a").click()
        opened = tab.locator("details[open]")
        assert opened.count() == 1
        assert opened.get_by_text("Its log's last lines").is_visible()
        assert opened.locator("pre").first.is_visible()
        assert not complaints


def test_every_cell_has_a_colour_and_a_sign(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, _):
        cells = tab.locator("table.grid tbody td:not(.absent)")
        assert cells.count() == 12
        signs = {text[0] for text in cells.all_inner_texts()}
        colours = {cell.evaluate("e => getComputedStyle(e).backgroundColor") for cell in cells.all()}
        assert len(signs) == len(colours) == 4


def test_the_reason_of_each_cell_that_did_not_pass_is_in_sight_once(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, _):
        why = tab.get_by_role("region", name="Why not")
        assert tab.locator("section h2").nth(1).inner_text() == "Why not"
        rows = why.get_by_role("row").all_inner_texts()[1:]
        assert len(rows) == 3 and "failed" in rows[0] and HOSTILE in rows[0]
        assert "4 cells" in rows[1] and "not run" in rows[1] and "run the matrix" in rows[1]


def test_figures_stand_under_their_model_and_an_empty_cell_is_explained(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, _):
        figures = tab.get_by_role("region", name="Figures")
        assert figures.locator("tr.heading").count() == 2
        first = figures.locator("tbody tr").nth(1).inner_text()
        assert "17 B" in first and "2.0 s" in first
        assert tab.get_by_text("An empty cell is a combination that the spec does not have").is_visible()


def test_what_changed_is_shown(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, _):
        assert tab.get_by_text("17 B (+112.5 %)").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Any, page: Path, scheme: str) -> None:
    with shown(browser, page, scheme=scheme) as (tab, _):
        tab.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        poor = [(ratio, text) for ratio, text in tab.evaluate(CONTRASTS) if ratio < 4.5]
        assert not poor


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_into_the_window(browser: Any, page: Path, width: int) -> None:
    with shown(browser, page, width=width) as (tab, _):
        tab.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_texts_run_nothing_and_nothing_is_asked_for(browser: Any, page: Path) -> None:
    with shown(browser, page) as (tab, complaints):
        tab.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert tab.evaluate("window.pwned === undefined")
        assert "<script>window.pwned" in tab.locator("main").inner_text()
        assert not complaints
