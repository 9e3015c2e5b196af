"""Models of any size, to measure what a build's memory and time depend on.

``BENCHMARK_MIB`` is the MiB of fp32 weights that they have. ``BENCHMARK_LAYERS`` is the layers of ``deep_decoder``.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.nn import functional

MIB = 2**20

Example = tuple[torch.nn.Module, tuple[Any, ...]]


def _mib() -> int:
    return int(os.environ.get("BENCHMARK_MIB", "64"))


class Block(torch.nn.Module):
    """A decoder's layer after Llama: RMS norms, rotary positions, causal attention, a gated product (SwiGLU)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = torch.nn.RMSNorm(width), torch.nn.RMSNorm(width)
        self.query, self.key, self.value, self.out = (torch.nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (torch.nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        hidden = self.before(x)

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        query, key, value = split(self.query(hidden)), split(self.key(hidden)), split(self.value(hidden))
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        hidden = self.after(x)
        return x + self.down(functional.silu(self.gate(hidden)) * self.up(hidden))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Decoder(torch.nn.Module):
    """Computes the logits (B, vocabulary) after the last of the tokens (B, length)."""

    def __init__(self, width: int, layers: int, heads: int = 8, vocabulary: int = 1024) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = torch.nn.RMSNorm(width)
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        self.rotary = width // heads

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
        steps = torch.arange(0, self.rotary, 2, device=tokens.device, dtype=torch.float32) / self.rotary
        angles = torch.outer(places, 10000.0**-steps).repeat(1, 2)
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))
        return self.head(self.norm(x)[:, -1])


def decoder() -> Example:
    """A decoder of width 1024, with as many layers of 40 MiB as make the size."""
    torch.manual_seed(0)
    return Decoder(1024, max(1, round(_mib() / 40))).eval(), (torch.randint(0, 1024, (1, 32)),)


def deep_decoder() -> Example:
    """A decoder of ``BENCHMARK_LAYERS`` layers with few weights, to measure what the operators alone cost."""
    torch.manual_seed(0)
    layers = int(os.environ.get("BENCHMARK_LAYERS", "32"))
    return Decoder(64, layers, heads=2, vocabulary=64).eval(), (torch.randint(0, 64, (1, 16)),)


def perceptron() -> Example:
    """A perceptron with square layers of width 2048, 16 MiB each."""
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Linear(2048, 2048), torch.nn.ReLU()) for _ in range(max(1, _mib() // 16))]
    return torch.nn.Sequential(*layers).eval(), (torch.randn(4, 2048),)
