"""A model that is cast by `build --precision`: inputs that it changes are changed as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples import models
from tests.integration.harness import build_here

pytestmark = pytest.mark.rtx


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
