"""Loading by several threads, of which torch's own reader serves one at a time; in inference mode; and errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from examples import models
from tests.integration.harness import CPU, build_here
from toolchain import open_artifact
from toolchain.errors import UsageError
from windows_side.loader.loading import load_flat, load_program

pytestmark = pytest.mark.rtx


def test_several_threads_load_at_once(tmp_path: Path) -> None:
    model, args = models.two_outputs()
    path = build_here(model, args, folder=tmp_path).artifact.path

    def nodes(number: int) -> tuple[int, int]:
        """Loads by our reader and by torch's, in turns."""
        with open_artifact(path) as artifact:
            arguments = (artifact, CPU, None, lambda fields: torch.tensor(0))
            graph = load_flat(*arguments).module.graph if number % 2 else load_program(*arguments).graph
            return number % 2, len(graph.nodes)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(nodes, range(80)))) == 2


def test_a_model_may_be_loaded_in_inference_mode_and_called_outside(tmp_path: Path) -> None:
    module, args = models.kv_cache()
    built = build_here(module, args, folder=tmp_path)
    with torch.inference_mode():
        model = built.model
    before = [buffer.clone() for buffer in built.buffers()]
    model(*args)
    assert not any(torch.equal(a, b) for a, b in zip(built.buffers(), before, strict=True)), "its state goes on"


def test_a_model_in_a_module_of_the_callers_may_be_evaluated_but_neither_trained_nor_moved(tmp_path: Path) -> None:
    module, args = models.two_outputs()
    model = build_here(module, args, folder=tmp_path).model
    outer = torch.nn.Sequential(model).eval()
    assert not any(part.training for part in outer.modules())
    assert torch.equal(outer(*args)[0], model(*args)[0])
    for change in (outer.train, outer.half, lambda: outer.to(torch.float64)):
        with pytest.raises(UsageError):
            change()
