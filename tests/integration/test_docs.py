"""Runs the commands of the documents. `<!-- run -->` marks a block of commands; `<!-- run: 3 -->` its exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.handmade import Handmade

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

BLOCK = re.compile(r"<!-- run(?:: (\d+))? -->\n```bash\n(.*?)```", re.S)


def nothing(_: Path) -> None:
    """Prepares nothing, for a page that makes all that it needs."""


def checkout(folder: Path) -> None:
    (folder / "examples").symlink_to(ROOT / "examples")


def artifact(folder: Path) -> None:
    Handmade().write(folder / "model.pt2")


# Prepares what a page needs. tests/unit/test_security_document.py runs docs/trust/signing.md.
DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "README.md": checkout,
    "docs/build/dynamic.md": nothing,
    "docs/fix/build.md": nothing,
    "docs/fix/check.md": artifact,
    "docs/reference/commands.md": nothing,
    "docs/ship/index.md": artifact,
    "docs/start/tutorial.md": nothing,
    "docs/verify/ci.md": artifact,
    "docs/verify/report.md": artifact,
}


def test_no_page_with_commands_is_left_out() -> None:
    marked = {
        page.relative_to(ROOT).as_posix()
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if BLOCK.search(page.read_text(encoding="utf-8"))
    }
    assert marked - {"docs/trust/signing.md"} == set(DOCUMENTS)


@pytest.mark.parametrize("document", list(DOCUMENTS))
def test_every_marked_command_does_what_the_text_says(document: str, tmp_path: Path) -> None:
    DOCUMENTS[document](tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    for code, script in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == int(code or 0), f"{script}\n{done.stdout}\n{done.stderr}"


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "text.md"]  # that is a page's template
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
