"""Takes the pictures of the documents:  python -m tests.browser.picture ARTIFACT CHROMIUM

ARTIFACT is that of ``examples.models:mixed``. The pages are those that the commands write. Figures that need a GPU are
invented (``tests/browser/samples.py``), which the documents state.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image
from playwright.sync_api import sync_playwright

from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.spec import load_spec
from tests.browser.samples import wrong_numbers
from tests.conftest import ROOT
from tests.unit.matrix_runs import finish
from toolchain.cli.main import cli

IMAGES = ROOT / "docs" / "images"
COLOURS = 64

SPEC = """
version = 1
precisions = ["fp32", "fp16"]
[models.resnet18]
model = "tests.models:tiny"
[models.minilm]
model = "tests.models:failing"
precisions = ["fp32"]
[[targets]]
[[targets]]
backend = "tensorrt"
gpus = ["sm_89"]
"""
PROBLEM = {
    "kind": "BuildFailedError",
    "problem": "what the model does depends on the data in a tensor: model.py:7: if x.sum() > 0:",
    "remedy": "compute both sides and choose with torch.where(condition, a, b)",
    "exit_code": 7,
}


def main(artifact: Path, chromium: str) -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        inspected = written(folder / "inspect.html", "inspect", str(artifact), "--html")
        take(browser, wrong_numbers(artifact, folder / "report.html"), "report", width=1000)
        take(browser, inspected, "inspect", width=1000, height=1150)
        take(browser, inspected, "inspect-dark-360", scheme="dark", width=360, height=1150)
        take(
            browser, written(folder / "check.html", "check", str(artifact), "--html"), "check", width=1000, height=1100
        )
        take(browser, matrix(folder), "matrix-why", width=1000, height=1000)
        browser.close()


def written(page: Path, *command: str) -> Path:
    CliRunner().invoke(cli, [*command, str(page)])
    return page


def matrix(folder: Path) -> Path:
    """Writes the page of a matrix with a failed cell and some cells that cannot be built here; returns its path."""
    os.chdir(folder)  # the page has the spec's path as its title
    spec, run = Path("models.toml"), RunFolder(folder / "run")
    spec.write_text(SPEC)
    cells = [cell for cell in cells_of(load_spec(spec)) if "rtx" in cell.id]
    for cell in cells:
        finish(run, cell, content=bytes(len(cell.id) * 2**20))
    finish(run, cells[1], state="failed", error=PROBLEM)
    return written(folder / "matrix.html", "matrix", "report", str(spec), "--out", str(run.path), "--html")


def take(browser: Any, page: Path, name: str, *, width: int, height: int = 0, scheme: str = "light") -> None:
    """Takes a picture of a page: of the first ``height`` pixels, or of the whole page if that is 0."""
    tab = browser.new_page(viewport={"width": width, "height": height or 800}, color_scheme=scheme)
    tab.goto(page.as_uri())
    path = IMAGES / f"{name}.png"
    Image.open(io.BytesIO(tab.screenshot(full_page=not height))).quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
