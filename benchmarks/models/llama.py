"""A language model's decoder, after Llama: rotary positions, fewer keys than queries, SwiGLU, RMS norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.models.flux import RMSNorm, rotated, rotation


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, key_heads: int, inner: int) -> None:
        super().__init__()
        self.head, self.groups = width // heads, heads // key_heads
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = (nn.Linear(width, key_heads * self.head, bias=False) for _ in range(2))
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        h = self.attention_norm(x)
        q, k, v = (
            layer(h).unflatten(-1, (-1, self.head)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        q, k = rotated(q, table), rotated(k, table)
        k, v = (value.repeat_interleave(self.groups, dim=1) for value in (k, v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(seen)
        h = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Computes the logits (B, length, words) of tokens (B, length)."""

    def __init__(self, width: int, heads: int, key_heads: int, layers: int, words: int) -> None:
        super().__init__()
        self.head = width // heads
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Layer(width, heads, key_heads, 8 * width // 3 // 32 * 32) for _ in range(layers))
        self.norm, self.logits = RMSNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        table = rotation(torch.arange(tokens.shape[1], device=tokens.device), self.head, 500_000.0)
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, table)
        return self.logits(self.norm(x))
