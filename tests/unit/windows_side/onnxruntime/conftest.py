"""Replaces onnxruntime by the stand-in of :mod:`.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.windows_side.onnxruntime.reference import ReferenceRuntime


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReferenceRuntime]:
    """The stand-in for onnxruntime, on a machine that meets every requirement."""
    pytest.importorskip("onnx")
    from tests.unit.windows_side.onnxruntime.reference import ReferenceRuntime
    from windows_side.onnxruntime import plugin, session

    reference = ReferenceRuntime()
    package = SimpleNamespace(get_ep_name=lambda: reference.name, get_library_path=lambda: "plugin")
    modules: dict[str, Any] = {"onnxruntime": reference, "onnxruntime_ep_nv_tensorrt_rtx": package}
    monkeypatch.setattr(plugin, "importlib", SimpleNamespace(import_module=modules.__getitem__))
    monkeypatch.setattr(session, "admit", lambda *_: [])
    plugin.load_plugin.cache_clear()
    yield reference
    plugin.load_plugin.cache_clear()
