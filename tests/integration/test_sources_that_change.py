"""A file of weights that changes while it is mapped: the build fails and leaves nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linux_side import build
from tests.integration.cases import mapped
from toolchain.errors import BuildFailedError

pytestmark = [pytest.mark.rtx, pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists mappings")]


def replaced(path: Path) -> None:
    mapped.write(path.with_name("new"))
    path.with_name("new").replace(path)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(4096)


def build_while(change: Callable[[Path], None], source: Path, model: str, phase: str, tmp_path: Path) -> str:
    """Builds, changes the source as a phase begins, and returns the error's text."""

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "start" and event["phase"] == phase:
            change(source)

    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(BuildFailedError) as caught:
        build(model, tmp_path / "out.pt2", cache=False, golden=0, progress=hear)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"new"}
    assert not list((tmp_path / "spool").glob("trtcross-*"))
    return str(caught.value)


@pytest.fixture
def weights(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model.safetensors"
    mapped.write(path)
    monkeypatch.setenv(mapped.FILE, str(path))
    return path


@pytest.mark.parametrize("change", [mapped.overwrite, replaced])
def test_a_build_of_weights_that_change_while_it_converts_fails(
    change: Callable[[Path], None], weights: Path, tmp_path: Path
) -> None:
    text = build_while(change, weights, "tests.integration.cases.mapped:perceptron", "convert", tmp_path)
    assert "were written to while they were built" in text and str(weights) in text


def test_a_build_of_weights_that_change_while_the_model_is_exported_fails(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="were written to while they were built") as caught:
        build("tests.integration.cases.mapped:overwritten", tmp_path / "out.pt2", cache=False, golden=0)
    assert caught.value.where == str(weights)


def test_a_file_of_weights_that_becomes_shorter_is_named_as_the_cause(weights: Path, tmp_path: Path) -> None:
    text = build_while(cut_short, weights, "tests.integration.cases.mapped:perceptron", "lower", tmp_path)
    assert "SIGBUS" in text and "a file of weights became shorter" in text


def test_a_saved_program_that_changes_once_it_is_exported_is_refused(tmp_path: Path, spool: Path) -> None:
    source = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(1024, 1024).eval(), (torch.ones(1, 1024),)), source)
    text = build_while(mapped.overwrite, source, str(source), "digest", tmp_path)
    assert "were written to while they were built" in text and str(source) in text
