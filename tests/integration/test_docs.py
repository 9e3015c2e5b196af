"""The documents' own commands, run as they stand. `<!-- run -->` marks a block; `<!-- run: 3 -->` its exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

BLOCK = re.compile(r"<!-- run(?:: (\d+))? -->\n```bash\n(.*?)```", re.S)
DOCUMENTS = {"README.md": True, "docs/start/tutorial.md": False}  # whether they speak from the checkout


@pytest.mark.parametrize("document", list(DOCUMENTS))
def test_every_marked_command_does_what_the_text_says(document: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))
    assert blocks
    if DOCUMENTS[document]:
        (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for code, script in blocks:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == int(code or 0), f"{script}\n{done.stdout}\n{done.stderr}"


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "text.md"]  # that is a page's template
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
