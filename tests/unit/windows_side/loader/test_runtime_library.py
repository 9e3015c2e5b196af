"""The runtime library without its Python package, and what happens where it does not load."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx_libs")

from toolchain.errors import MissingComponentError  # noqa: E402
from toolchain.targets import Backend  # noqa: E402
from windows_side.loader import runtime_library as runtime  # noqa: E402


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that does not load; a real one cannot be damaged without damaging the installation."""

    def refuse(path: str) -> None:
        raise OSError(f"{path}: undefined symbol")

    monkeypatch.setattr(torch.ops, "load_library", refuse)
    monkeypatch.delitem(runtime.sys.modules, "torch_tensorrt", raising=False)


def test_the_whole_package_is_imported_instead_with_a_warning(broken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(importlib, "import_module", taken.append)
    with pytest.warns(UserWarning, match="undefined symbol.*whole package"):
        runtime.load_runtime(Backend.TENSORRT_RTX)
    assert taken == ["torch_tensorrt"]


def test_where_neither_loads_both_reasons_are_reported(broken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingComponentError, match=r"(?s)undefined symbol.*no driver"):
        runtime.load_runtime(Backend.TENSORRT_RTX)
