"""Language models of transformers: whole texts, and single steps with a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.encoders import WORDS, mask, texts, words
from benchmarks.zoo.row import Made, Row, batch

GROUP = "decoders"
CACHE = 64
_SMALL = {
    "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 128,
}  # fmt: skip


def _model(name: str, changes: dict[str, Any]) -> Any:
    import transformers

    config_class = getattr(transformers, f"{name}TextConfig", None) or getattr(transformers, f"{name}Config")
    config = config_class(**{**_SMALL, **changes})
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _whole(name: str, model: str, precision: str | None = None, *, lengths: bool = True, **changes: Any) -> Row:
    """Makes a row that computes the logits of whole texts.

    Args:
        lengths: whether the length may vary; a model that loops over the text has a fixed one.
    """

    def make() -> Made:
        return _model(model, {**changes, "use_cache": False}), (), {"input_ids": words(), "attention_mask": mask()}

    names = ("input_ids", "attention_mask")
    return Row(name, GROUP, make, "transformers", texts(*names) if lengths else batch(*names), precision)


class Step(nn.Module):
    """One step of a decoder whose cache (transformers' StaticCache) is in buffers of the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

        self.model = TorchExportableModuleWithStaticCache(model, batch_size=1, max_cache_len=CACHE, device="cpu")

    def forward(self, input_ids: Tensor, cache_position: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, cache_position=cache_position)
        return logits


class Past(nn.Module):
    """One step of a decoder that takes keys and values as tensors, and returns them with one more position."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (key, value) in enumerate(past):
            cache.update(key, value, layer)
        result = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return result.logits, [(layer.keys, layer.values) for layer in result.past_key_values.layers]


def _step(name: str, model: str, precision: str | None = None, **changes: Any) -> Row:
    def make() -> Made:
        made = _model(model, {**changes, "use_cache": True})
        made.generation_config.use_cache = True
        made.generation_config.cache_implementation = "static"
        return Step(made), (words(1), torch.tensor([5]))

    return Row(name, GROUP, make, "transformers", (), precision)


def _past(
    name: str, model: str, *, heads: int = 2, size: int = 16, precision: str | None = None, **changes: Any
) -> Row:
    def make() -> Made:
        generator = torch.Generator().manual_seed(3)
        past = [tuple(torch.randn(1, heads, 24, size, generator=generator) for _ in "kv") for _ in range(2)]
        return Past(_model(model, {**changes, "use_cache": True})), (words(1), past)

    names = [f"past.{layer}.{place}" for layer in range(2) for place in range(2)]
    dynamic = ("input_ids.0=1:1:4", *(f"{n}.{d}={r}" for n in names for d, r in ((0, "1:1:4"), (2, "1:24:64"))))
    return Row(name, GROUP, make, "transformers", dynamic, precision)


def _of(make: Callable[[], Made], name: str, dynamic: tuple[str, ...] = (), precision: str | None = None) -> Row:
    return Row(name, GROUP, make, "transformers", dynamic, precision)


def _gpt2() -> Made:
    import transformers

    config = transformers.GPT2Config(vocab_size=WORDS, n_embd=64, n_layer=2, n_head=4, n_positions=128, use_cache=False)
    return transformers.GPT2LMHeadModel(config), (), {"input_ids": words(), "attention_mask": mask()}


ROWS = [
    _of(_gpt2, "gpt2", texts("input_ids", "attention_mask"), "fp16"),
    _whole("llama", "Llama", "fp16"),
    _whole("mistral", "Mistral", sliding_window=16),
    _whole("qwen2", "Qwen2", "bf16"),
    _whole("qwen3", "Qwen3", head_dim=16),
    _whole("gemma2", "Gemma2", head_dim=16, sliding_window=16, query_pre_attn_scalar=16),
    _whole("gemma3", "Gemma3", head_dim=16, sliding_window=16, query_pre_attn_scalar=16),
    _whole("phi3", "Phi3", pad_token_id=0),
    _whole("gpt-neox", "GPTNeoX"),
    _whole("falcon", "Falcon", alibi=True, num_kv_heads=2, new_decoder_architecture=False),
    _whole("mixtral", "Mixtral", num_local_experts=4, num_experts_per_tok=2),
    _whole("olmo2", "Olmo2"),
    _whole("mamba", "Mamba", lengths=False, state_size=8),
    _step("llama-step-static-cache", "Llama"),
    _step("qwen2-step-static-cache", "Qwen2", "fp16"),
    _past("llama-step-past", "Llama"),
    _past("qwen3-step-past", "Qwen3", head_dim=16, precision="fp16"),
]  # fmt: skip
