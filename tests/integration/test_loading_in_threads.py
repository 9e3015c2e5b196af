"""Several threads load at once: torch's own reader of programs takes one at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from examples import models
from tests.integration.harness import CPU, build_here
from toolchain import open_artifact
from windows_side.loading import load_program

pytestmark = pytest.mark.rtx


def test_several_threads_load_at_once(tmp_path: Path) -> None:
    model, args = models.two_outputs()
    path = build_here(model, args, folder=tmp_path).artifact.path

    def nodes(_: int) -> int:
        with open_artifact(path) as artifact:
            return len(load_program(artifact, CPU, None, lambda fields: torch.tensor(0)).graph.nodes)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(nodes, range(40)))) == 1
