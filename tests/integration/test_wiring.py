"""The differential harness finds the exporter's wiring right: every output is equal to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from examples import models
from tests.integration.harness import assert_same_wiring, build_here

pytestmark = pytest.mark.rtx

MIXED_OPTIONS: dict[str, Any] = {"torch_executed_ops": ["aten.arange.start_step", "aten.full.default"]}


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_engines_around_a_pytorch_part_with_parameter_buffer_and_factory(tmp_path: Path, batch: int) -> None:
    module, args = models.mixed()
    built = build_here(module, args, folder=tmp_path, dynamic=("x.0=1:4:8",), **MIXED_OPTIONS)
    assert len(built.artifact.engines) >= 2
    loaded = built.loaded()
    assert list(loaded.state_dict) == ["scale"]
    assert "offset" in loaded.constants, "a non-persistent buffer is no part of the state dict"
    x = torch.randn(batch, 16)
    got = assert_same_wiring(built, x)
    assert relative_error(got, module(x)) < 1e-5


def test_two_outputs(tmp_path: Path) -> None:
    module, args = models.two_outputs()
    built = build_here(module, args, folder=tmp_path)
    assert_same_wiring(built, *args)
    first, second = built.run(*args)
    want = module(*args)
    assert relative_error(first, want[0]) < 1e-5 and relative_error(second, want[1]) < 1e-5


def test_nested_structures_and_keywords(tmp_path: Path) -> None:
    module, args, kwargs = models.nested()
    built = build_here(module, args, kwargs, folder=tmp_path)
    assert_same_wiring(built, *args, **kwargs)
    got, want = built.run(*args, **kwargs), module(*args, **kwargs)
    assert got.keys() == want.keys() and isinstance(got["list"][1], tuple)
    assert relative_error(got["list"][0], want["list"][0]) < 1e-5
