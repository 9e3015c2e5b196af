"""A real browser, and pages for it to show. Where there is no chromium, these tests are skipped with the reason."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Trtcross
from tests.unit.handmade import Handmade

HERE = Path(__file__).parent
HOSTILE = "</script></style><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))  # one browser, one build


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a chromium, which is downloaded if there is none."""
    if os.name != "posix":
        pytest.skip("no chromium: chromium.sh is for Linux")
    folder = os.environ.get("TRTCROSS_CHROMIUM", ROOT / ".chromium")
    found = subprocess.run([HERE / "chromium.sh", folder], capture_output=True, text=True, check=False, timeout=300)
    if found.returncode == 77:
        pytest.skip(f"NO BROWSER: {found.stderr.strip().splitlines()[-1]}")
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER: playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a real artifact with several engines, and of a handmade hostile one.

    There is no GPU here, so the outputs are tensors with small differences, which are compared as an engine's would be.
    """
    if importlib.util.find_spec("torch_tensorrt") is None:  # importing it needs a GPU
        pytest.skip("torch-tensorrt-rtx is not installed")
    from tests.browser.samples import hostile_figures, verified, wrong_numbers
    from tests.integration import warm

    trtcross = partial(warm.trtcross, cwd=ROOT)
    folder = tmp_path_factory.mktemp("pages")
    artifact = folder / "mixed.pt2"
    built = trtcross("build", "examples.models:mixed", "-o", artifact, "-q")
    assert built.returncode == 0, built.stderr
    damaged = folder / "damaged.pt2"
    damaged.write_bytes(artifact.read_bytes()[:-1000])
    hostile = Handmade(edit_manifest=make_hostile).write(folder / "<script>hostile&.pt2")
    return {
        "verified": verified(artifact, folder / "verified.html"),
        "wrong numbers": wrong_numbers(artifact, folder / "wrong.html"),
        "damaged": by_command(trtcross, damaged, folder / "damaged.html", 4),
        "not here": by_command(trtcross, artifact, folder / "not-here.html", 3),
        "inspected": by_command(trtcross, artifact, folder / "inspected.html", 0, "inspect"),
        "checked": by_command(trtcross, artifact, folder / "checked.html", 3, "check"),
        "hostile": hostile_figures(hostile, folder / "hostile.html", HOSTILE),
    }


def by_command(trtcross: Trtcross, artifact: Path, page: Path, code: int, verb: str = "verify") -> Path:
    done = trtcross(verb, artifact, "--html", page)
    assert done.returncode == code, done.stderr
    return page


def make_hostile(document: dict[str, Any]) -> None:
    """Puts a script wherever a manifest holds free text."""
    document["model"]["name"] = HOSTILE
    document["producer"]["os"] = HOSTILE
    document["install"] = [HOSTILE]
    document["fallback"] = [{"operator": HOSTILE, "count": 1, "device": "x" * 5000}]
    for engine in document["engines"]:
        engine["inputs"][0]["name"] = engine["outputs"][0]["name"] = HOSTILE
