"""The kept corpus breaks no target; where atheris is installed, each target is also fuzzed for some seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz.run import KEPT, fuzz
from tests.fuzz.targets import TARGETS

SECONDS = 1
CORPUS = sorted(path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", CORPUS)
def test_the_kept_corpus(name: str) -> None:
    TARGETS[name.partition("/")[0]]((KEPT / name).read_bytes())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run(tmp_path: Path, target: str) -> None:
    outcome = fuzz(target, SECONDS, tmp_path / "corpus", tmp_path / "findings")
    assert outcome.finding is None
    assert outcome.executions > 100, "the fuzzer did not run"
