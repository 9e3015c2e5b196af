"""TensorRT-RTX's engines record whether they were built for TF32."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch import nn, ones

from tests.integration.harness import build_here
from toolchain.engine.tf32 import VARIABLE

pytestmark = pytest.mark.rtx


@pytest.mark.parametrize("outside", [None, "0", "1"])
@pytest.mark.parametrize("tf32", [True, False])
def test_an_engine_records_what_was_asked_whatever_the_environment_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf32: bool, outside: str | None
) -> None:
    if outside is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, outside)
    (engine,) = build_here(nn.Linear(8, 8), (ones(4, 8),), folder=tmp_path, tf32=tf32).artifact.engines
    recorded = b"nvidia_tf32_override=" + (b"-1" if tf32 else b"0")
    assert recorded + b"\n" in engine.read()
    assert os.environ.get(VARIABLE) == outside
