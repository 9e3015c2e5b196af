"""pyproject.toml lists exactly the distributions that the packages import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import linux_side
import toolchain
import windows_side
from tests.conftest import ROOT
from toolchain.io.toml import parse_toml

# Modules whose names differ from their distributions'.
DISTRIBUTIONS = {
    "torch_tensorrt": "torch-tensorrt-rtx",
    "pynvml": "nvidia-ml-py",
    "model_signing": "model-signing",
    "OpenSSL": "pyopenssl",
    "cuda": "cuda-bindings",
    "google": "protobuf",
}
# Used without an import statement: torch gives arrays of it; read by name on Python 3.10; its plans are built by it;
# imported by name when a session is made.
WITHOUT_IMPORT = {"numpy", "tomli", "torch-tensorrt", "tensorrt-rtx"}
OURS = {"toolchain", "linux_side", "windows_side"}


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Yields the top-level modules of import statements, without those that only a type checker reads."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from _imported(statement.orelse)
        elif isinstance(statement, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module).partition(".")[0]
        else:
            for name in ("body", "orelse", "finalbody", "handlers"):
                yield from _imported(getattr(statement, name, []))


def _used(*packages: object) -> set[str]:
    files = [path for package in packages for path in Path(str(package.__file__)).parent.rglob("*.py")]
    found = {name for path in files for name in _imported(ast.parse(path.read_text("utf-8")).body)}
    return {DISTRIBUTIONS.get(name, name) for name in found - OURS - set(sys.stdlib_module_names)}


def _listed(*extras: str) -> set[str]:
    project = parse_toml((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {re.split(r"[^A-Za-z0-9_-]", line, maxsplit=1)[0].lower() for line in lines}


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        (toolchain, ("sign", "consumer", "producer", "onnx")),  # GPUs for the one, memory for the other
        (linux_side, ("producer", "tensorrt", "cluster", "hub")),
        (windows_side, ("consumer", "runtime")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_imported_is_listed(package: object, extras: tuple[str, ...]) -> None:
    assert _used(package) <= _listed(*extras)


def test_what_is_listed_is_used() -> None:
    listed = _listed("producer", "consumer", "runtime", "tensorrt", "sign", "cluster", "onnx")
    assert listed - _used(toolchain, linux_side, windows_side) <= WITHOUT_IMPORT
