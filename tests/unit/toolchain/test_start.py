"""Starts that must be fast do not import modules that take longer than reading a manifest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.unit.imports import imported_by

ARTIFACT = str(ROOT / "tests" / "compatibility" / "schema1" / "dynamic.pt2")
SLOW = {"pydantic", "pydantic_core", "annotated_types", "filelock", "rich", "jinja2", "urllib3", "numpy", "torch"}


def _modules(*arguments: str) -> set[str]:
    """Returns every module that a fresh Python imports, as it reports them."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_inspect_imports_nothing_slow() -> None:
    modules = _modules("-m", "toolchain", "inspect", ARTIFACT)
    assert "toolchain.manifest.models" in modules
    assert not modules & {*SLOW, "importlib.metadata", "urllib.request", "zipfile"}


def test_an_artifact_is_opened_and_found_safe_without_anything_slow() -> None:
    code = "from toolchain import open_artifact; from toolchain.checker import require_safe_to_load; import sys\n"
    assert not imported_by(code + "require_safe_to_load(open_artifact(sys.argv[1]))", ARTIFACT) & SLOW


def test_a_session_imports_neither_pydantic_nor_what_only_writing_needs() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    assert not imported_by("import windows_side.session.running") & (SLOW - {"numpy"})
