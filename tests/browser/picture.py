"""Takes the picture of docs/report.md:  python -m tests.browser.picture ARTIFACT CHROMIUM"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.samples import wrong_numbers
from tests.conftest import ROOT

PICTURE = ROOT / "docs" / "images" / "report.png"


def main(artifact: Path, chromium: str) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = wrong_numbers(artifact, Path(folder) / "report.html")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        tab.goto(page.as_uri())
        Image.open(io.BytesIO(tab.screenshot(full_page=True))).quantize(128).save(PICTURE, optimize=True)
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
