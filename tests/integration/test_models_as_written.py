"""Models as people write them are right at every size, in as few engines as can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.cases.as_written import MODELS, One
from tests.integration.harness import assert_right, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_right_at_every_size(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    calls = model.calls()
    built = build_here(model.module(), calls[0], folder=tmp_path, dynamic=model.dynamic())
    assert built.original is not None
    assert_right(built, built.original, calls[0], other_args=calls[1:])
    assert len(built.artifact.engines) == model.engines
    assert tuple(entry.operator for entry in built.artifact.manifest.fallback) == model.in_torch
    assert built.artifact.manifest.guards == []


def test_a_number_that_tensorrt_cannot_hold_is_named(tmp_path: Path) -> None:
    model = One(lambda s, x: x + 2**40, {})
    with pytest.raises(BuildFailedError, match="1099511627776"):
        build_here(model, (torch.arange(4),), folder=tmp_path)
