"""A decoding step of transformers with static caches is one engine that writes in place, and is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.harness import build_here

pytestmark = pytest.mark.rtx

pytest.importorskip("transformers")

from benchmarks.models.decoders import DECODERS, Sizes, decoder  # noqa: E402 - the models need transformers

LAYERS = {"gemma3": 2}  # one of each kind; of the others one
# The other decoders are of the same kinds; with them this file runs for half a minute.
FAST = ("gemma3", "t5")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in DECODERS])
def test_decoding_is_right_in_one_engine_that_writes_in_place(tmp_path: Path, name: str) -> None:
    sizes, layers = Sizes(), LAYERS.get(name, 1)
    model, steps = decoder(name, sizes, layers, sizes.length)
    built = build_here(model, steps[0], folder=tmp_path)
    [engine] = built.artifact.engines
    assert len(engine.entry.aliased_io) == 2 * layers and not built.artifact.manifest.fallback
    assert "golden_warnings" not in built.artifact.manifest.settings
    assert built.original is not None
    for step in steps:  # beyond the window, and to the end of the cache
        with torch.no_grad():
            wanted = built.original(*step)
        torch.testing.assert_close(built.run_networks(*step), wanted, rtol=1e-4, atol=1e-5)
