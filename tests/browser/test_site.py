"""The site of `make docs`, opened from its folder: it loads nothing else, has a search, and follows the scheme."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT

SITE = ROOT / ".site"
QUESTIONS = {
    "dynamic model": "build/dynamic.html",
    "not here": "fix/check.html",
    "verify ci": "verify/ci.html",
    "what does a signature cover": "trust/signing.html",
    "placeholder replaced": "reference/inside.html",
    "skeleton": "start/glossary.html",
    "faster than pytorch": "benchmarks/index.html",
    "first call slow": "run/first-call.html",
    "stays in pytorch": "build/fallback.html",
    "unsigned file": "trust/security.html",
    "windows driver": "run/windows.html",
}


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    opened = browser.new_page(viewport={"width": 1360, "height": 800})
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto((SITE / "index.html").as_uri())
    yield opened
    opened.close()


@pytest.mark.parametrize("words", list(QUESTIONS))
def test_a_search_finds_the_page_first_and_asks_nobody(tab: Any, words: str) -> None:
    tab.keyboard.press("/")
    tab.locator("input.md-search__input").press_sequentially(words)
    tab.wait_for_function(
        "page => document.querySelector('.md-search-result__link')?.href.includes(page)", arg=QUESTIONS[words]
    )
    assert [url for url in tab.asked if not url.startswith(("file:", "data:", "about:"))] == []


def test_a_drawing_follows_the_scheme_that_a_reader_chose(tab: Any) -> None:
    schemes = set()
    for _ in range(3):
        tab.locator("label.md-header__button[for^=__palette]:visible").first.click()
        schemes.add(tab.evaluate("getComputedStyle(document.querySelector('.md-typeset img')).colorScheme"))
    assert schemes == {"light", "dark"}


def test_no_page_is_wider_than_a_narrow_window(tab: Any) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    wide = []
    for page in sorted(SITE.rglob("*.html")):
        tab.goto(page.as_uri())
        if tab.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(page.relative_to(SITE).as_posix())
    assert wide == []
