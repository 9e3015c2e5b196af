"""docs/reference/api.md lists the public names: each is in its package's ``__all__``, and imports no torch."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.conftest import ROOT
from tests.unit.imports import imported_by

ROWS = {
    package: re.findall(r"`(\w+)`", names)
    for package, names in re.findall(
        r"^\| `((?:toolchain|linux_side|windows_side)[a-z_.]*)` \| ([^|]+) \|",
        (ROOT / "docs/reference/api.md").read_text("utf-8"),
        re.M,
    )
}
NEED_TORCH = {"export", "load", "LoadedModel", "replace_execute_engine_no_op_node"}


@pytest.mark.parametrize("package", [name for name in ROWS if name != "toolchain.errors"])
def test_the_page_lists_what_the_package_exports(package: str) -> None:
    assert ROWS[package] == importlib.import_module(package).__all__


@pytest.mark.parametrize("package", [name for name in ROWS if name != "toolchain.errors"])
def test_every_public_name_is_there(package: str) -> None:
    pytest.importorskip("torch")
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError):
        module.nonsense  # noqa: B018 - the lookup is what is tested


@pytest.mark.parametrize("package", [name for name in ROWS if name != "toolchain.errors"])
def test_a_public_face_imports_no_torch(package: str) -> None:
    names = ", ".join(name for name in ROWS[package] if name not in NEED_TORCH)
    assert "torch" not in imported_by(f"from {package} import {names}")
