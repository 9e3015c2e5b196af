"""`load`, and the verbs that load, inspect the machine and read the file once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click.testing
import pytest

pytest.importorskip("torch")

import torch

from examples import models
from tests.integration.harness import CPU, build_here
from tests.unit.handmade import Handmade
from tests.unit.toolchain.test_once import counted
from toolchain import artifact as artifact_module
from toolchain import open_artifact
from toolchain.cli.main import cli
from toolchain.convert import convert_artifact
from toolchain.errors import IncompatibleError
from toolchain.graph import document
from toolchain.targets import Platform
from windows_side.loader import loading, replace
from windows_side.preflight import requirements as preflight


@pytest.mark.parametrize("verb", ["run", "bench", "verify"])
def test_preflight_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Without a GPU, loading gets as far as the runtime library; the requirement of a GPU is waived for that."""
    Handmade().write(tmp_path / "windows.pt2")
    path = tmp_path / "a.pt2"
    with open_artifact(tmp_path / "windows.pt2") as artifact:
        convert_artifact(artifact, path, Platform.LINUX_X86_64)
    asked = counted(monkeypatch, preflight, "_requirements")
    names = [item.name for item in preflight.check(open_artifact(path))]
    monkeypatch.setattr(preflight, "_RISKS", set(names))
    asked.clear()

    def reached(backend: object) -> None:
        raise IncompatibleError("the runtime is loaded next")

    monkeypatch.setattr(loading, "load_runtime", reached)
    options = {
        "run": ["--input", str(tmp_path / "x"), "--output", str(tmp_path / "y")],
        "bench": ["--no-first-call"],
        "verify": ["--level", "load", "--junit", str(tmp_path / "junit.xml")],
    }
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 0))
    done = click.testing.CliRunner().invoke(cli, [verb, str(path), *options[verb]])
    assert "the runtime is loaded next" in done.output, done.output
    assert len(asked) == 1


@pytest.mark.rtx
def test_a_load_reads_the_graph_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, args = models.two_outputs()
    path = build_here(model, args, folder=tmp_path).artifact.path
    passes, whole = counted(monkeypatch, artifact_module, "read_facts"), counted(monkeypatch, document, "load_json")
    with open_artifact(path) as artifact:
        program = loading.load_program(artifact, CPU, None, lambda fields: torch.tensor(0))
    assert any("execute_engine" in str(node.target) for node in program.graph.nodes)
    assert (len(passes), len(whole)) == (1, 0)
    with open_artifact(path) as artifact:
        loading.load_flat(artifact, CPU, None, lambda fields: torch.tensor(0))
    assert (len(passes), len(whole)) == (2, 1), "in pieces before it is trusted, then as a whole"


def test_replacing_hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    hashed = counted(monkeypatch, hashlib, "sha256")
    assert replace._decode("QUJD", "test") == b"ABC"
    assert hashed == []


@pytest.mark.rtx
def test_threads_load_one_open_artifact(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model, args = models.two_outputs()
    with build_here(model, args, folder=tmp_path).artifact as built, open_artifact(built.path) as artifact:

        def engines(_: int) -> list[Any]:
            found: list[Any] = []
            loading.load_flat(artifact, CPU, None, lambda fields: found.append(bytes(fields[3])) or torch.tensor(0))
            return found

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(engines, range(16)))
        assert results == [[engine.read() for engine in artifact.engines]] * 16
