"""The changelog, the workflow's template and the install lines of the pages name the same release."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from toolchain.io.toml import parse_toml

if not (ROOT / "ci/templates").is_dir():
    pytest.skip("the workflows are not here", allow_module_level=True)

VERSION: str = parse_toml((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "ci/templates/trtcross.yml"]


def test_every_install_line_names_this_release() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in PAGES
        for match in re.finditer(r"trtcross(?:-|==)(\d[\w.]*\d)", path.read_text("utf-8"))
        if match.group(1) != VERSION
    }
    assert not found, "\n".join(sorted(found))


def test_the_changelog_begins_with_this_release() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert sections[0] == VERSION and len(sections) == len(set(sections))
