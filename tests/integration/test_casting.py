"""A model that is cast by `build --precision`: inputs that it changes are changed as before, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from examples import models
from linux_side.frontend.source import export_source
from linux_side.options import BuildOptions
from tests.integration.harness import build_here

pytestmark = pytest.mark.rtx

LARGE = 1e5  # more than fp16 holds


class Writes(nn.Module):
    """Writes one column of a nested keyword argument, through a view, and scales a copy of the other input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        cast = x.to(self.scale.dtype)  # another tensor in fp32 but for x being fp32 itself
        state["cache"][:, 1].copy_(x[:, 0])
        return cast + self.scale


class CastsItself(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.half()
        half.mul_(2)
        return half.float()


def changes(program: torch.export.ExportedProgram) -> dict[str, str]:
    return dict(program.run_decompositions().graph_signature.user_inputs_to_mutate)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_input_is_changed_in_place(tmp_path: Path, precision: str) -> None:
    original, (total, x) = models.accumulator()
    built = build_here(models.accumulator()[0], (total.clone(), x.clone()), folder=tmp_path, precision=precision)
    wanted, untouched = total.clone(), x.clone()
    for _ in range(3):
        with torch.no_grad():
            original(wanted, x)
        result = built.run(total, x)
        assert total.dtype is torch.float32
        torch.testing.assert_close(total, wanted, rtol=2e-2, atol=0)
        torch.testing.assert_close(result, 2 * wanted, rtol=2e-2, atol=0)
    assert torch.equal(x, untouched)


def test_what_is_not_written_keeps_its_precision(tmp_path: Path) -> None:
    def call() -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        return (torch.full((3, 4), 0.5),), {"state": {"cache": torch.full((3, 4), LARGE)}}

    args, kwargs = call()
    built = build_here(Writes(), args, kwargs, folder=tmp_path, precision="fp16")
    args, kwargs = call()
    built.run(*args, **kwargs)
    wanted = torch.full((3, 4), LARGE)
    wanted[:, 1] = 0.5
    assert torch.equal(kwargs["state"]["cache"], wanted)
    assert torch.equal(args[0], torch.full((3, 4), 0.5))


def test_a_copy_that_the_model_casts_itself_is_not_the_input() -> None:
    options = BuildOptions(precision="fp16")
    assert not changes(export_source("test", CastsItself().eval(), (torch.ones(3),), {}, options).program)


def test_without_golden_io_what_changes_is_told_while_exporting() -> None:
    model, args = models.accumulator()
    options = BuildOptions(precision="fp16", golden=0)
    assert set(changes(export_source("test", model, args, {}, options).program).values()) == {"total"}
