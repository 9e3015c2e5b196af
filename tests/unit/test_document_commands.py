"""Pages mark which blocks of commands a test runs, and the files and pages that pages and messages name exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [path for name in ("toolchain", "linux_side", "windows_side", "ci") for path in (ROOT / name).rglob("*.py")]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.S | re.M)
SHELLS = {"bash", "sh", "powershell", "console"}
COMMAND = re.compile(r"^(\$ )?(trtcross|make|python|pip|py|ci/\S+) ", re.M)

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Linux checks the pages; the Windows leg has not all that they name"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_block_of_commands_says_whether_it_is_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if re.search(r"^<!-- page not run: .+ -->$", text, re.M):
        return
    unmarked = [
        block["text"]
        for block in BLOCK.finditer(text)
        if (block["language"] in SHELLS or (not block["language"] and COMMAND.search(block["text"])))
        and not re.fullmatch(r"run(: \d+)?|not run: .+", block["mark"] or "")
    ]
    assert unmarked == []


def test_each_page_that_a_message_or_a_comment_names_is_there() -> None:
    named = {
        name
        for path in (*PAGES, *SOURCES, ROOT / "Makefile", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
        for name in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_picture_of_a_builds_memory_has_the_figures_of_its_table() -> None:
    page = (ROOT / "docs" / "benchmarks" / "build.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "images" / "build-memory.svg").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z][^|]+) \| (\d+) \| (\d+) \| \d+ \|$", page, re.M)
    shown = re.findall(r'<text class="end"[^>]*>([^<]+)</text>.*?>(\d+)</text>.*?>(\d+)</text>', picture, re.S)
    assert shown == rows and rows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(
        r"(?<![\w/.])(?:toolchain|linux_side|windows_side|tests|benchmarks|ci|examples|docs)/[\w/.-]+\.(?:py|md|json|toml|sh|ps1|yml)\b",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("package", ["toolchain", "linux_side", "windows_side"])
def test_the_map_of_the_rooms_has_every_room(package: str) -> None:
    page = (ROOT / "docs" / "reference" / "inside.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| `{package}/`, from the top.*?(?=\n\n)", page, re.S | re.M)
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}/`" not in table} == set()


def test_what_belongs_to_the_whole_process_is_where_its_list_says() -> None:
    page = (ROOT / "docs" / "reference" / "process.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \(`([\w/]+\.py)`\)", page, re.M)
    assert len(listed) > 5
    missing = [
        f"{name} in {file}"
        for name, file in listed
        if not re.search(rf"^(def )?{name}\b", (ROOT / "windows_side" / file).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []


def test_the_zoos_page_is_what_its_results_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from benchmarks.zoo import rows, table

    monkeypatch.setattr(table, "TABLE", tmp_path / "zoo.md")
    table.write_table(rows.zoo(), table.read_records(table.RESULTS))
    page = (ROOT / "docs" / "build" / "zoo.md").read_text(encoding="utf-8")
    assert (tmp_path / "zoo.md").read_text(encoding="utf-8") == page
