"""Decoding steps of models of transformers, with static caches that keep their state within the model.

They need transformers. The caches are attributes of the model, neither buffers nor arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder and its cache.

    Attributes:
        heads: the number of attention heads.
        size: the width of a head.
        length: the number of tokens that the cache holds.
        window: the number of earlier tokens that a layer with a sliding window sees.
        words: the size of the vocabulary.
        encoded: the number of positions of the encoder, where there is one.
    """

    heads: int = 2
    size: int = 8
    length: int = 12
    window: int = 4
    words: int = 32
    encoded: int = 6

    @property
    def width(self) -> int:
        return self.heads * self.size

    @property
    def llama(self) -> dict[str, int]:
        """The sizes by transformers' names in models after Llama."""
        return {
            "vocab_size": self.words,
            "hidden_size": self.width,
            "intermediate_size": 2 * self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.size,
            "max_position_embeddings": 4 * self.length,
        }


class Decoder(nn.Module):
    """Computes the logits (1, 1, words) of a token (1, 1); the cache counts the tokens."""

    def __init__(self, model: Any, sizes: Sizes) -> None:
        super().__init__()
        self.model = model
        self.cache = _static_cache(model.config, sizes)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True).logits
        return logits


class CrossDecoder(nn.Module):
    """The decoder of an encoder-decoder model; its keys and values of the encoder are computed at the first step."""

    def __init__(self, model: Any, sizes: Sizes) -> None:
        super().__init__()
        from transformers import DynamicCache, EncoderDecoderCache

        self.decoder, self.head = model.get_decoder(), model.get_output_embeddings()
        config = model.config.get_text_config(decoder=True)
        self.cache = EncoderDecoderCache(_static_cache(config, sizes), DynamicCache(config=config))

    def forward(self, ids: Tensor, encoded: Tensor) -> Tensor:
        found = self.decoder(input_ids=ids, encoder_hidden_states=encoded, past_key_values=self.cache, use_cache=True)
        logits: Tensor = self.head(found.last_hidden_state)
        return logits


def _static_cache(config: Any, sizes: Sizes) -> Any:
    from transformers import StaticCache

    cache = StaticCache(config=config, max_cache_len=sizes.length)
    cache.early_initialization(1, sizes.heads, sizes.size, torch.float32, torch.device("cpu"))
    return cache


def llama(sizes: Sizes, layers: int) -> nn.Module:
    """Makes a decoder whose every layer keeps the whole text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return Decoder(LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **sizes.llama)), sizes)


def mistral(sizes: Sizes, layers: int) -> nn.Module:
    """Makes a decoder whose every layer keeps a sliding window."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(num_hidden_layers=layers, sliding_window=sizes.window, **sizes.llama)
    return Decoder(MistralForCausalLM(config), sizes)


def gemma3(sizes: Sizes, layers: int) -> nn.Module:
    """Makes a decoder in which layers with a sliding window and layers that keep the whole text alternate."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"] * layers
    config = Gemma3TextConfig(
        num_hidden_layers=layers, layer_types=kinds[:layers], sliding_window=sizes.window, **sizes.llama
    )
    return Decoder(Gemma3ForCausalLM(config), sizes)


def t5(sizes: Sizes, layers: int) -> nn.Module:
    """Makes a decoder with relative positions, which attends to an encoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    named = {"d_model": sizes.width, "d_kv": sizes.size, "d_ff": 2 * sizes.width, "num_heads": sizes.heads}
    config = T5Config(vocab_size=sizes.words, num_layers=layers, num_decoder_layers=layers, **named)
    return CrossDecoder(T5ForConditionalGeneration(config), sizes)


def whisper(sizes: Sizes, layers: int) -> nn.Module:
    """Makes a decoder with learned positions, which attends to an encoder."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    both = {"layers": layers, "attention_heads": sizes.heads, "ffn_dim": 2 * sizes.width}
    named = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    lengths = {"max_source_positions": sizes.encoded, "max_target_positions": sizes.length}
    config = WhisperConfig(vocab_size=sizes.words, d_model=sizes.width, **lengths, **named, **tokens)
    return CrossDecoder(WhisperForConditionalGeneration(config), sizes)


DECODERS: dict[str, Callable[[Sizes, int], nn.Module]] = {
    "llama": llama,
    "mistral": mistral,
    "gemma3": gemma3,
    "t5": t5,
    "whisper": whisper,
}
CROSS = frozenset({"t5", "whisper"})


def decoder(name: str, sizes: Sizes, layers: int, steps: int) -> tuple[nn.Module, list[tuple[Tensor, ...]]]:
    """Returns a decoder with random weights, and the arguments of ``steps`` calls."""
    torch.manual_seed(0)
    model = DECODERS[name](sizes, layers).eval()
    tokens = torch.randint(3, sizes.words, (steps, 1, 1))
    more = (torch.randn(1, sizes.encoded, sizes.width),) if name in CROSS else ()
    return model, [(token, *more) for token in tokens]
