"""Models as people write them are right at every size, in as few engines as possible."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.cases.as_written import MODELS, One
from tests.integration.harness import assert_right, build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_right_at_every_size(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    calls = model.calls()
    built = build_here(model.module(), calls[0], folder=tmp_path, dynamic=model.dynamic())
    assert built.original is not None
    assert_right(built, built.original, calls[0], other_args=calls[1:])
    assert len(built.artifact.engines) == model.engines
    assert tuple(entry.operator for entry in built.artifact.manifest.fallback) == model.in_torch
    assert built.artifact.manifest.guards == []


def test_a_mixture_of_experts_of_transformers_needs_no_operator_of_its_own(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 32}
    experts = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    torch.manual_seed(0)
    model = transformers.MixtralModel(transformers.MixtralConfig(**sizes, **experts))
    calls = [(torch.arange(1, 1 + length)[None],) for length in (6, 2, 12)]
    whole = One(lambda s, x: s.m(input_ids=x, use_cache=False).last_hidden_state, {"m": model}).eval()
    built = build_here(whole, calls[0], folder=tmp_path, dynamic=("x.1=2:6:12",))
    assert_right(built, whole, calls[0], other_args=calls[1:])
    assert all(entry.operator.startswith("aten.") for entry in built.artifact.manifest.fallback)


def test_a_number_that_tensorrt_cannot_hold_is_named(tmp_path: Path) -> None:
    model = One(lambda s, x: x + 2**40, {})
    with pytest.raises(BuildFailedError, match="1099511627776"):
        build_here(model, (torch.arange(4),), folder=tmp_path)
