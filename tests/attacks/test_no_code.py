"""Reading a file reaches no function that could run code from it, and notices a file that changes meanwhile."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import pickle
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click.testing
import pytest

from tests.attacks.attacks import ATTACKS
from tests.unit.foreign import Foreign
from tests.unit.handmade import Handmade, plan
from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.structure import check_integrity, check_structure
from toolchain.cli.main import cli
from toolchain.commands.inspect import inspect
from toolchain.convert import convert_artifact
from toolchain.errors import MalformedArtifactError, TrtcrossError, UntrustedError
from toolchain.targets import Platform
from windows_side.preflight import requirements as preflight

DANGEROUS = [
    (pickle, "Unpickler"),
    (pickle, "loads"),
    (pickle, "load"),
    (builtins, "eval"),
    (builtins, "exec"),
    (os, "system"),
    (subprocess, "Popen"),
]
DANGEROUS_WHERE_INSTALLED = [("torch", "load"), ("sympy", "sympify"), ("torch.utils._pytree", "treespec_loads")]
HOSTILE = [name for name, attack in ATTACKS.items() if attack.error is UntrustedError and "limit" not in name]


def _convert(artifact: Artifact) -> None:
    convert_artifact(artifact, artifact.path.with_name("converted"), Platform("linux-x86_64"))


def _look_at(path: Path) -> None:
    with open_artifact(path) as artifact:
        for check in (check_integrity, check_structure, preflight.check, _convert):
            with suppress(TrtcrossError):
                check(artifact)
    click.testing.CliRunner().invoke(inspect, [str(path), "--digests"])


@pytest.fixture
def trapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Sets traps in dangerous functions; returns the names of those that are reached."""
    _look_at(Handmade().write(tmp_path / "first"))
    _look_at(Foreign().write(tmp_path / "second"))  # imports what there is to import, which calls exec
    found = preflight.probe_gpus()  # in a process of its own, the only one
    monkeypatch.setattr(preflight, "probe_gpus", lambda: found)
    reached: list[str] = []

    def trap(name: str) -> Callable[..., Any]:
        def sprung(*arguments: object, **options: Any) -> None:
            reached.append(name)
            raise AssertionError(f"{name} was reached")

        return sprung

    targets = list(DANGEROUS)
    for module, name in DANGEROUS_WHERE_INSTALLED:
        if importlib.util.find_spec(module.partition(".")[0]):
            targets.append((importlib.import_module(module), name))
    for owner, name in targets:
        monkeypatch.setattr(owner, name, trap(f"{owner.__name__}.{name}"))
    return reached


def test_dangerous_functions_are_never_reached(trapped: list[str], tmp_path: Path) -> None:
    """This is one test over many files, because importing torch, to patch it, takes long."""
    for name in HOSTILE:
        ATTACKS[name].write(tmp_path / name)
        with suppress(TrtcrossError):
            _look_at(tmp_path / name)
    _look_at(Handmade().write(tmp_path / "good"))
    _look_at(Foreign().write(tmp_path / "good_foreign"))
    assert trapped == []


@pytest.fixture(scope="module")
def loader() -> Any:
    """The loader, imported before the traps are set, because importing calls exec."""
    pytest.importorskip("torch")
    return importlib.import_module("windows_side.loader.loading")


def test_loading_hostile_files_reaches_no_dangerous_function_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loader: Any, trapped: list[str]
) -> None:
    """Loading refuses the files before torch's reader is called."""
    import torch

    monkeypatch.setattr(torch.export, "load", lambda *_: trapped.append("torch.export.load"))
    for name in HOSTILE:
        ATTACKS[name].write(tmp_path / name)
        with open_artifact(tmp_path / name) as artifact, pytest.raises(UntrustedError):
            loader.load_flat(artifact, torch.device("cpu"), None)
    assert trapped == []


def test_the_traps_work(trapped: list[str]) -> None:
    with pytest.raises(AssertionError):
        eval("1")
    assert trapped == ["builtins.eval"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.open("ab").close() or os.utime(path, ns=(0, 0)),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: Handmade(engines=[plan(b"another")]).write(path),
        lambda path: path.unlink(),
    ],
    ids=["touched", "longer", "shorter", "replaced", "removed"],
)
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    with open_artifact(path) as artifact:
        artifact.check_engines()
        try:
            change(path)
        except PermissionError:
            pytest.skip("Windows lets nobody replace an open file")
        with pytest.raises(MalformedArtifactError):
            check_integrity(artifact)


def test_exit_codes_of_the_command(tmp_path: Path) -> None:
    for name, code in (("pickled_weights", 5), ("bytes_truncated", 4), ("path_is_missing", 2)):
        ATTACKS[name].write(tmp_path / name)
        arguments = ["verify", "--level", "structure", str(tmp_path / name)]
        assert click.testing.CliRunner().invoke(cli, arguments).exit_code == code
