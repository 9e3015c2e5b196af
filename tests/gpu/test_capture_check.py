"""A CUDA graph without an engine is refused on a GPU: TensorRT enqueues no engine whose loop has a varying length."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.gpu.conftest import close
from toolchain.errors import IncompatibleError
from windows_side import load


class Sums(nn.Module):
    """Running sums over a size that varies, and an output without them.

    TensorRT unrolls a loop of a fixed length.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x)
        return y.cumsum(0) / 4, y.relu()


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


def build_with(folder: Path, *, loop: bool) -> Path:
    """Builds in a process of its own, because a build imports Torch-TensorRT; returns the artifact's path."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        path, found = process.submit(_build, folder, loop=loop).result()
    assert found == loop
    return path


def _build(folder: Path, *, loop: bool) -> tuple[Path, bool]:
    from linux_side.backends import base
    from tests.integration.harness import build_here
    from tests.integration.network.control import LOOP_KINDS

    if loop:
        base.add_running_sums_without_loops = lambda graph: None
    made = build_here(Sums(), (X,), folder=folder, target="linux-x86_64", dynamic=["x.0=1:8:16"])
    kinds = {layer.kind for network in made.networks.values() for layer in network.layers}
    return made.artifact.path, not kinds.isdisjoint(LOOP_KINDS)


@pytest.mark.parametrize("loop", [True, False], ids=["a loop", "no loop"])
def test_an_engine_with_a_loop_is_refused_with_cuda_graphs_and_right_without(tmp_path: Path, loop: bool) -> None:
    path, x = build_with(tmp_path, loop=loop), X.cuda()
    with torch.no_grad():
        want = [result.cuda() for result in Sums()(X)]
    close(list(load(path, allow_unlisted_gpu=True)(x)), want)
    captured = load(path, allow_unlisted_gpu=True, cuda_graphs=True)
    if loop:
        with pytest.raises(IncompatibleError, match="an engine is missing"):
            captured(x)
        return
    for _ in range(12):
        close(list(captured(x)), want)
