"""A model that is dropped frees its resources at once, without garbage collection.

The tests run on the CPU, where tensors are stand-ins for engines; tests/gpu drops real ones.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from examples import models
from tests.integration.harness import CPU, Built, build_here, put_partitions
from toolchain.errors import IncompatibleError
from windows_side.execution.model import LoadedModel

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("dropped models")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    module, args = models.mixed()
    kept = ["aten.arange.start_step", "aten.full.default"]
    return build_here(
        module, args, folder=tmp_path_factory.mktemp("mixed"), dynamic=("x.0=1:4:8",), torch_executed_ops=kept
    )


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def loaded(built: Built) -> tuple[LoadedModel, list[weakref.ref[torch.Tensor]]]:
    """Loads a model; returns it with weak references to its engines, parameters and buffers."""
    program = built.flat()
    model = LoadedModel(program, built.artifact.manifest, CPU)
    values = [*program.engines, *program.module.parameters(), *program.module.buffers()]
    held = list({id(value): value for value in values}.values())  # the engines' stand-ins are buffers
    del values
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


def test_a_part_may_be_kept(built: Built) -> None:
    model, _ = loaded(built)
    state = model.state_dict()
    (part,) = model.children()
    del model
    assert [value.tolist() for value in part.state_dict().values()] == [value.tolist() for value in state.values()]


def test_a_copy_goes_on_when_the_original_goes(built: Built) -> None:
    model, held = loaded(built)
    another = copy.copy(model)
    del model
    put_partitions(another._flat, list(built.partitions.values()))
    x = torch.randn(2, 16)
    assert torch.equal(another(x), built.run(x))
    del another
    assert not any(ref() is not None for ref in held)


def test_a_model_that_waits_for_its_last_call_is_not_handed_out(built: Built) -> None:
    model, held = loaded(built)
    reference, seen = weakref.ref(model), []
    model._order.wait_for_the_last_call = lambda: seen.append((reference(), held[0]() is None))  # type: ignore[method-assign]
    del model
    assert seen == [(None, False)], "engines are there until the last call is done"


def test_a_model_in_a_cycle_is_freed_when_that_is_collected(built: Built) -> None:
    model, held = loaded(built)
    said = []

    class Service:
        """An object whose finalizer calls its model."""

        def __init__(self, model: LoadedModel) -> None:
            self.model, self.itself = model, self

        def __del__(self) -> None:
            said.extend(self.model.state_dict())

    Service(model)
    del model
    gc.collect()
    assert said and not any(ref() is not None for ref in held)


def test_a_model_that_could_not_be_made_leaves_nothing(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise IncompatibleError("the CUDA driver makes no stream", where="load", remedy="load it without cuda_graphs")

    monkeypatch.setattr("windows_side.execution.model.CapturedProgram", refuse)
    program = built.flat()
    held = [weakref.ref(value) for value in program.engines]
    with pytest.raises(IncompatibleError):
        LoadedModel(program, built.artifact.manifest, CPU, cuda_graphs=True)
    del program
    assert not any(ref() is not None for ref in held)
