"""docs/trust/: every test that a page names exists, every attack has a row in the table, and the commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.handmade import Handmade

TRUST = ROOT / "docs" / "trust"
TESTS = ROOT / "tests"


def _table(page: str, heading: str) -> list[list[str]]:
    text = (TRUST / page).read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_promise_names_tests_that_exist() -> None:
    for row in _table("security.md", "Promises and their tests"):
        names = re.findall(r"`([a-z_/]+\.py)`", row[-1])
        assert names, row
        assert [name for name in names if not (TESTS / name).exists()] == []


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    """Returns the names that a row may give, by their source."""
    from tests.attacks.attacks import ATTACKS

    sources = [path.read_text(encoding="utf-8") for path in (TESTS / "attacks").glob("test_*.py")]
    signatures = (TESTS / "attacks" / "test_signatures.py").read_text(encoding="utf-8")
    return {
        "attacks": list(ATTACKS),
        "signatures": re.findall(r"^def (\w+)\(scene: Scene\) -> str:", signatures, re.M),
        "tests": [name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.M)],
    }


def test_every_row_is_a_test_and_every_attack_has_a_row(names: dict[str, list[str]]) -> None:
    beginnings = [name for row in _table("attacks.md", "The table") for name in re.findall(r"`(\w+)`", row[-1])]
    every = [name for found in names.values() for name in found]
    assert all(re.search("`", row[-1]) for row in _table("attacks.md", "The table"))
    assert [begin for begin in beginnings if not any(name.startswith(begin) for name in every)] == []
    attacks = names["attacks"] + names["signatures"]
    assert [name for name in attacks if not name.startswith(tuple(beginnings))] == []


@pytest.mark.skipif(
    os.name == "nt" or not shutil.which("openssl") or not shutil.which("unzip"), reason="no openssl, unzip"
)
def test_the_commands_run(tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    Handmade().write(tmp_path / "model.pt2")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```", (TRUST / "signing.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    for script in blocks:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
