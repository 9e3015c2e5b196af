"""Finds what code imports, in a fresh Python."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def imported_by(code: str, *arguments: str) -> set[str]:
    """Returns the top-level packages that a fresh Python has imported after running ``code``."""
    code += "\nimport sys; print(); print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())
