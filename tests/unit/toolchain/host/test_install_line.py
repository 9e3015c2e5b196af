"""The lines that install trtcross use no package index, where anybody could own its name."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from toolchain.host.installed import install_line, own_version


def installed_from(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = None if url is None else json.dumps({"url": url})
    found = SimpleNamespace(read_text=lambda _: text, version=own_version())
    monkeypatch.setattr(metadata, "distribution", lambda _: found)


def test_it_is_installed_from_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a folder").mkdir()
    installed_from((tmp_path / "a folder").as_uri(), monkeypatch)
    assert install_line("sign") == f'python -m pip install "{tmp_path / "a folder"}[sign]"'


@pytest.mark.parametrize("url", [None, "file:///no/such/place", "https://example.com/trtcross-0.1.0-py3-none-any.whl"])
def test_else_the_wheel_is_named(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(url, monkeypatch)
    assert install_line("sign") == f'python -m pip install "trtcross-{own_version()}-py3-none-any.whl[sign]"'


def test_no_message_and_no_page_asks_an_index_for_trtcross() -> None:
    asked = re.compile(r"pip install +['\"]?trtcross(?!-[^ ]*\.whl)")
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    sources = [path for name in ("toolchain", "linux_side", "windows_side") for path in (ROOT / name).rglob("*.py")]
    assert not [str(path) for path in (*pages, *sources) if asked.search(path.read_text(encoding="utf-8"))]
