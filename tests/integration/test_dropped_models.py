"""A model that is dropped frees what it holds at once, without Python's collector.

On the CPU: tensors stand for engines, which exist on a GPU only; tests/gpu drops real ones.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples import models
from tests.integration.harness import CPU, Built, build_here
from windows_side.model import LoadedModel

pytestmark = pytest.mark.rtx


@pytest.fixture
def built(tmp_path: Path) -> Built:
    module, args = models.mixed()
    kept = ["aten.arange.start_step", "aten.full.default"]
    return build_here(module, args, folder=tmp_path, dynamic=("x.0=1:4:8",), torch_executed_ops=kept)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def loaded(built: Built) -> tuple[LoadedModel, list[weakref.ref[torch.Tensor]]]:
    """A model, and what takes memory in it: engines, parameters and buffers."""
    program = built.loaded()
    model = LoadedModel(program, built.artifact.manifest, CPU)
    held = [*program.constants.values(), *program.state_dict.values()]
    assert len(held) == 5, "three engines, a parameter and a buffer"
    return model, [weakref.ref(value) for value in held]


def test_engines_and_weights_are_freed_at_once(built: Built) -> None:
    model, held = loaded(built)
    assert all(ref() is not None for ref in held)
    del model
    assert not any(ref() is not None for ref in held)


def test_its_program_may_be_kept(built: Built) -> None:
    model, held = loaded(built)
    program = model.program
    del model
    assert all(ref() is not None for ref in held)
    assert program.module(check_guards=False) is not None


def test_a_model_in_a_cycle_is_freed_when_that_is_collected(built: Built) -> None:
    model, held = loaded(built)
    model.itself = [model]
    del model
    gc.collect()
    assert not any(ref() is not None for ref in held)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_model_that_could_not_be_made_says_nothing_when_it_goes(built: Built) -> None:
    with pytest.raises(AttributeError):
        LoadedModel(None, built.artifact.manifest, CPU)  # type: ignore[arg-type]
    gc.collect()
