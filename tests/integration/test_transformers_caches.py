"""Decoding steps of transformers with their static caches: one engine that writes in place and is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.integration.harness import build_here

pytestmark = pytest.mark.rtx

transformers = pytest.importorskip("transformers")

HEADS, SIZE, LENGTH, WINDOW = 2, 8, 12, 4
SMALL = {
    "vocab_size": 32,
    "hidden_size": HEADS * SIZE,
    "intermediate_size": 16,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": SIZE,
    "max_position_embeddings": 32,
}


def _static_cache(config: Any) -> Any:
    cache = transformers.StaticCache(config=config, max_cache_len=LENGTH)
    cache.early_initialization(1, HEADS, SIZE, torch.float32, torch.device("cpu"))
    return cache


class Decoder(nn.Module):
    """The cache is an attribute, no buffer, and counts by itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.cache = _static_cache(model.config)

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True).logits


class CrossDecoder(nn.Module):
    """The decoder of an encoder-decoder model; what it has of the encoder is computed at the first step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.get_decoder(), model.get_output_embeddings()
        config = model.config.get_text_config(decoder=True)
        self.cache = transformers.EncoderDecoderCache(_static_cache(config), transformers.DynamicCache(config=config))

    def forward(self, ids: Tensor, encoded: Tensor) -> Tensor:
        found = self.decoder(input_ids=ids, encoder_hidden_states=encoded, past_key_values=self.cache, use_cache=True)
        return self.head(found.last_hidden_state)


def _llama() -> nn.Module:
    return Decoder(transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=1, **SMALL)))


def _mistral() -> nn.Module:
    config = transformers.MistralConfig(num_hidden_layers=1, sliding_window=WINDOW, **SMALL)
    return Decoder(transformers.MistralForCausalLM(config))


def _gemma3() -> nn.Module:
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(num_hidden_layers=2, layer_types=kinds, sliding_window=WINDOW, **SMALL)
    return Decoder(transformers.Gemma3ForCausalLM(config))


def _t5() -> nn.Module:
    sizes = {"d_model": HEADS * SIZE, "d_kv": SIZE, "d_ff": 16, "num_heads": HEADS}
    config = transformers.T5Config(vocab_size=32, num_layers=1, num_decoder_layers=1, **sizes)
    return CrossDecoder(transformers.T5ForConditionalGeneration(config))


def _whisper() -> nn.Module:
    both = {"layers": 1, "attention_heads": HEADS, "ffn_dim": 16}
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(
        vocab_size=32, d_model=HEADS * SIZE, max_source_positions=6, max_target_positions=LENGTH, **sizes, **tokens
    )
    return CrossDecoder(transformers.WhisperForConditionalGeneration(config))


ENCODED = (torch.randn(1, 6, HEADS * SIZE, generator=torch.Generator().manual_seed(0)),)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], int]] = {
    "Llama": (_llama, (), 1),
    "Mistral, sliding window": (_mistral, (), 1),
    "Gemma 3, hybrid": (_gemma3, (), 2),
    "T5": (_t5, ENCODED, 1),
    "Whisper": (_whisper, ENCODED, 1),
}


# The others are of the same kinds, and make this file run for half a minute.
FAST = ("Gemma 3, hybrid", "T5")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_decoding_is_right_in_one_engine_that_writes_in_place(tmp_path: Path, name: str) -> None:
    make, more, layers = MODELS[name]
    torch.manual_seed(0)
    ids = torch.randint(3, 32, (LENGTH, 1, 1))
    built = build_here(make().eval(), (ids[0], *more), folder=tmp_path)
    [engine] = built.artifact.engines
    assert len(engine.entry.aliased_io) == 2 * layers and not built.artifact.manifest.fallback
    assert "golden_warnings" not in built.artifact.manifest.settings
    assert built.original is not None
    for token in ids:  # beyond the window, and to the end of the cache
        with torch.no_grad():
            wanted = built.original(token, *more)
        torch.testing.assert_close(built.run_networks(token, *more), wanted, rtol=1e-4, atol=1e-5)
