"""Models that are in halves as people have them: a decoder, a network of convolutions."""

from __future__ import annotations

import torch

from benchmarks.scale import Decoder
from tests.integration.cases import Case, Example


def decoder(dtype: torch.dtype = torch.bfloat16) -> Example:
    torch.manual_seed(0)
    return Decoder(64, 2, heads=2, vocabulary=64).to(dtype).eval(), (torch.randint(0, 64, (1, 16)),)


def convolutions(dtype: torch.dtype = torch.float16) -> Example:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 32, 3), torch.nn.BatchNorm2d(32), torch.nn.GELU(), torch.nn.Conv2d(32, 16, 3)]
    model = torch.nn.Sequential(*layers, torch.nn.GroupNorm(4, 16))
    return model.to(dtype).eval(), (torch.randn(1, 3, 12, 12).to(dtype),)


def rounded_positions() -> Example:
    """Places over 256 are rounded in bf16, and so are angles: what the model gives depends on it."""
    x = torch.arange(1000, 1032, dtype=torch.float32).reshape(4, 8)
    return Case(lambda s, x: s.linear(x.bfloat16().cos()), linear=torch.nn.Linear(8, 8).bfloat16()).eval(), (x,)
