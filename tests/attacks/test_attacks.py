"""Reading a hostile file raises its error, fast and in little memory, and writes and runs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attacks import ATTACKS
from tests.conftest import ROOT
from tests.unit.foreign import Foreign
from tests.unit.handmade import Handmade
from toolchain.container.reader import Container
from toolchain.errors import MalformedArtifactError

pytestmark = pytest.mark.xdist_group("attacks")  # one process opens them all

# The slowest, a graph of as many nodes as are read, takes 0.55 s of CPU on a quiet core and 1.0 s on a shared one.
SECONDS = 2.0
BYTES = 200 * 2**20


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of each attack; one watched process opens all files."""
    folder = tmp_path_factory.mktemp("attacks")
    for name, attack in ATTACKS.items():
        attack.write(folder / name)
    Handmade().write(folder / "good")
    Foreign().write(folder / "good_foreign")
    before = _state(folder)
    command = [sys.executable, "-m", "tests.attacks.watch", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert _state(folder) == before
    found: dict[str, Any] = json.loads(done.stdout)
    found.setdefault("path_is_missing", found["good"])
    return found


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["good", "good_foreign"])
def test_a_good_file_passes(results: dict[str, Any], name: str) -> None:
    assert (results[name]["code"], results[name]["did"]) == (0, [])


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "path_is_missing"])
def test_attack(results: dict[str, Any], name: str) -> None:
    result, error = results[name], ATTACKS[name].error
    assert (result["kind"], result["code"]) == (error.__name__, error.exit_code), result["text"]
    assert result["inspected"] in (0, error.exit_code)
    assert result["did"] == []
    assert result["seconds"] < SECONDS


ZIP_ATTACKS = [
    name
    for name in ATTACKS
    if name.startswith(("name_", "headers_", "bytes_", "zip")) or name.endswith("_entries")
    if name != "headers_both_crc_of_the_manifest"  # a digest of the content, which opening does not read
]


@pytest.mark.parametrize("name", ZIP_ATTACKS)
def test_the_container_itself_refuses(tmp_path: Path, name: str) -> None:
    """The container refuses the file without its manifest, as for a foreign program, whose headers may not be ours."""
    ATTACKS[name].write(tmp_path / "a.pt2")
    with pytest.raises(MalformedArtifactError):
        Container(tmp_path / "a.pt2")


def test_each_of_them_stays_small(results: dict[str, Any]) -> None:
    worst = max(results, key=lambda name: int(results[name]["peak"]))
    assert results[worst]["peak"] < BYTES
