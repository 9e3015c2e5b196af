"""The page of `verify --html` in a real browser: what it shows, what it loads, and whether it can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import HOSTILE

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

NAMES = ("verified", "wrong numbers", "damaged", "not here", "hostile", "inspected", "checked")
WINDOWS = {"wide": 1280, "narrow": 360}

# Returns every visible text with the contrast of its colour to its background (WCAG 2, relative luminance).
CONTRASTS = """() => {
  const parse = (color) => color.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    const svg = element.namespaceURI.endsWith("svg");
    const pair = [luminance(parse(svg ? style.fill : style.color)), luminance(behind(element))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


@contextmanager
def shown(browser: Any, page: Path, *, scheme: str = "light", width: int = 1280) -> Iterator[tuple[Any, list[str]]]:
    """Opens a tab with the page; yields it and a list of its errors and its requests beyond the page."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.on("request", lambda request: complaints.append(request.url) if request.url != page.as_uri() else None)
    tab.goto(page.as_uri())
    yield tab, complaints
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_for_nothing_and_runs_nothing_of_the_file(browser: Any, pages: dict[str, Path], name: str) -> None:
    with shown(browser, pages[name]) as (tab, complaints):
        assert complaints == []
        assert tab.evaluate("window.pwned") is None
        assert tab.locator("img, iframe, link").count() == 0


@pytest.mark.parametrize("width", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_every_text_can_be_read(browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int) -> None:
    with shown(browser, pages[name], scheme=scheme, width=width) as (tab, _):
        found = tab.evaluate(CONTRASTS)
        assert len(found) > 10
        assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_a_window_between_wide_and_narrow_is_filled_and_no_more(browser: Any, pages: dict[str, Path]) -> None:
    for name, page in pages.items():
        with shown(browser, page, width=900) as (tab, _):
            assert tab.evaluate("document.documentElement.scrollWidth") <= 900, name


def test_the_verdict_comes_first(browser: Any, pages: dict[str, Path]) -> None:
    headlines = {
        "verified": "Verified: integrity, structure, load, numbers",
        "wrong numbers": "Wrong numbers",
        "damaged": "Damaged or malformed",
        "not here": "Not verified: it cannot run here",
    }
    for name, headline in headlines.items():
        with shown(browser, pages[name]) as (tab, _):
            assert tab.get_by_role("heading", level=2).first.inner_text().endswith(headline)
            assert headline in tab.title()


def test_assistive_technology_finds_tables_and_pictures(browser: Any, pages: dict[str, Path]) -> None:
    for width in WINDOWS.values():
        with shown(browser, pages["wrong numbers"], width=width) as (tab, _):
            assert tab.get_by_role("region", name="What the artifact needs").get_by_role("row").count() > 8
            assert tab.get_by_role("rowheader", name="torch-cuda").count() == 1
            pictures = tab.get_by_role("img")
            assert pictures.count() >= 3
            assert "Of 8,000 elements" in (pictures.first.get_attribute("aria-label") or "")
    with shown(browser, pages["verified"]) as (tab, _):
        for header in ("requirement", "state", "needs", "here", "cosine", "worst element"):
            assert tab.get_by_role("columnheader", name=header).count() == 1


def test_pictures_show_what_the_numbers_say(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["wrong numbers"]) as (tab, _):
        engines = tab.get_by_role("region", name="Engines").locator("table.bars tr")
        sizes = {
            row.locator("th").inner_text(): row.locator("rect").last.bounding_box()["width"] for row in engines.all()
        }
        assert max(sizes, key=lambda name: sizes[name]).startswith("_run_on_acc")
        worst = tab.locator("figure").filter(has_text="features, sample 0")
        limit = worst.locator("line.limit").bounding_box()["x"]
        bad, fine = worst.locator("rect.bad"), worst.locator("rect.none")
        assert bad.count() == 2 and all(bar.bounding_box()["x"] > limit for bar in bad.all())
        assert all(bar.bounding_box()["x"] < limit for bar in fine.all())


def test_the_script_filters_and_copies(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["not here"]) as (tab, complaints):
        needs = tab.get_by_role("region", name="What the artifact needs")
        everything = needs.get_by_role("row").count()
        needs.get_by_role("checkbox").check()
        asking = needs.get_by_role("row").count()
        assert 1 < asking < everything
        assert "unknown" in needs.inner_text() and "\u2713" not in needs.inner_text()
        tab.get_by_role("button", name="copy").last.click()
        tab.get_by_role("button", name="copied").or_(tab.get_by_role("button", name="selected")).wait_for()
        assert complaints == []


def test_it_can_be_read_without_its_script(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(pages["wrong numbers"].as_uri())
    assert "outside their tolerance" in tab.inner_text("main") and tab.locator("button").count() == 0
    context.close()


def test_hostile_text_is_shown_and_the_policy_is_a_second_wall(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["hostile"]) as (tab, complaints):
        assert tab.inner_text("main").count(HOSTILE) >= 10
        tab.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.pwned = 2";
              document.body.append(script);
              const image = "<img src='http://127.0.0.1:9/x' onerror='window.pwned = 3'>";
              document.body.insertAdjacentHTML("beforeend", image);
            }"""
        )
        tab.wait_for_timeout(200)
        assert tab.evaluate("window.pwned") is None
        refused = [text for text in complaints if "Content Security Policy" in text]
        assert len(refused) >= 2


def test_it_prints_in_black_on_white_without_its_buttons(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["wrong numbers"], scheme="dark") as (tab, _):
        tab.emulate_media(media="print")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert not any(button.is_visible() for button in tab.locator("button").all())
        assert tab.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", WINDOWS.values(), ids=WINDOWS)
def test_the_graph_is_a_picture_whose_texts_stand_in_their_boxes(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    with shown(browser, pages["inspected"], width=width) as (tab, _):
        graph = tab.locator("figure.graph")
        assert graph.locator("svg.engine").count() == 2 and graph.locator("svg.torch").count() >= 1
        assert "engines (solid)" in (graph.get_by_role("img").get_attribute("aria-label") or "")
        for box in graph.locator("svg.box").all():
            around = box.locator("rect").bounding_box()
            for text in box.locator("text").all():
                inside = text.bounding_box()
                assert around["x"] < inside["x"] and inside["x"] + inside["width"] < around["x"] + around["width"]
        labels = [text.bounding_box() for text in graph.locator("text.label").all()]
        assert len(labels) > 3
        for index, one in enumerate(labels):
            assert all(abs(one["y"] - other["y"]) > 10 for other in labels[index + 1 :])


def test_digests_and_names_do_not_break_within_a_word(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["inspected"], width=360) as (tab, _):
        for token in tab.locator("code.token").all():
            assert token.bounding_box()["height"] < 30
        lines = tab.evaluate(
            """() => [...document.querySelectorAll("tbody th")].filter((e) => e.textContent.startsWith("_run_on"))
                 .map((e) => e.querySelectorAll("wbr").length)"""
        )
        assert lines and all(lines)


def test_commands_have_the_real_file_name_and_a_button(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["not here"]) as (tab, _):
        commands = tab.locator("code").all_inner_texts()
        assert any(re.search(r"trtcross convert \S*mixed\.pt2 --target", text) for text in commands)
        assert any(re.search(r"trtcross verify \S*mixed\.pt2 --level numbers", text) for text in commands)
        assert tab.get_by_role("button", name="copy").count() == len(commands)
        assert "ARTIFACT" not in tab.inner_text("main")


def test_a_reason_is_shown_once(browser: Any, pages: dict[str, Path]) -> None:
    with shown(browser, pages["checked"]) as (tab, _):
        needs = tab.get_by_role("region", name="What the artifact needs")
        assert needs.get_by_text("no NVIDIA driver").count() == 1
        assert needs.get_by_text("as for driver").count() >= 1
