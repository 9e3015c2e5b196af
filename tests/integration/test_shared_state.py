"""Two artifacts of one language model share a key-value cache, and decode as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples import llm
from tests.integration.harness import Built, build_here
from toolchain.errors import UsageError

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("shared state")]

TINY = (64, 32, 2, 2, 32)
PROMPT = torch.tensor([[5, 9, 2, 7, 1]])


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Built, Built]]:
    folder = tmp_path_factory.mktemp("llm")
    model, args = llm.prefill(*TINY)
    first = build_here(model, args, folder=folder, dynamic=("ids.1=2:8:16", "positions.0=2:8:16"))
    model, args = llm.decode(*TINY)
    yield first, build_here(model, args, folder=folder)


def test_a_prefill_and_a_decode_artifact_decode_as_pytorch_does(artifacts: tuple[Built, Built]) -> None:
    first, step = artifacts
    assert not first.artifact.manifest.fallback and not step.artifact.manifest.fallback
    [engine] = step.artifact.engines
    assert len(engine.entry.aliased_io) == 4  # keys and values of two layers, in place
    step.network_model.share_state(first.network_model)
    original = llm.model(*TINY)
    with torch.no_grad():
        found = llm.compare((first.network_model, step.network_model), (original, original), PROMPT, 24)
    assert found["worst_relative_l2"] < 1e-5 and found["same_greedy_tokens"] == 24


def test_what_one_model_writes_the_other_reads(artifacts: tuple[Built, Built]) -> None:
    first, step = artifacts
    own = set(map(torch.Tensor.data_ptr, step.model.state.values()))
    step.model.share_state(first.model)
    assert list(step.model.state) == list(first.model.state) and len(own) == 4
    assert all(mine is first.model.state[name] for name, mine in step.model.state.items())
    step.model(torch.tensor([[3]]), torch.tensor([4]))
    assert all(cache[0, 0, 4].any() and not cache[0, 0, 3].any() for cache in first.model.state.values())


def test_other_state_is_refused_by_name(artifacts: tuple[Built, Built], tmp_path: Path) -> None:
    model, args = llm.decode(64, 32, 2, 2, 24)
    other = build_here(model, args, folder=tmp_path)
    with pytest.raises(
        UsageError, match=r"blocks\.0\.attention\.keys is float32 \[1, 2, 24, 16\] on cpu, and .* 32, 16"
    ):
        other.model.share_state(artifacts[0].model)


def test_sampled_tokens_are_among_the_likeliest() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 64)
    drawn = {int(llm.sampled(logits, top=5)) for _ in range(50)}
    assert drawn <= set(logits.topk(5).indices[0].tolist()) and len(drawn) > 1
