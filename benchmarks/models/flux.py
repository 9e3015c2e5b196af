"""A diffusion transformer of two streams, after Flux and Stable Diffusion 3.

Text and image have weights of their own and attend together; after some blocks they are one sequence. Queries and keys
are normalized, and rotated by each token's place in the picture. An embedding of the time modulates every norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


def rotation(places: Tensor, width: int, theta: float = 10_000.0) -> Tensor:
    """Returns cosines and sines (2, length, width / 2) of the angles by which each place is rotated."""
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float32, device=places.device) / width)
    angles = places.float().unsqueeze(-1) * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Rotates each pair of numbers of ``x`` (B, heads, length, width) by its angle."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = table
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2).to(x.dtype)


def waves(time: Tensor, width: int) -> Tensor:
    """Returns cosines and sines (B, width) of a time from 0 to 1 (B)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=time.device) / (width // 2))
    angles = 1000 * time.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1).to(time.dtype)


class Heads(nn.Module):
    """Computes the queries, keys and values of one stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm, self.key_norm = RMSNorm(width // heads), RMSNorm(width // heads)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.query_norm(q), self.key_norm(k), v


def attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(rotated(q, table), rotated(k, table), v)
    return out.transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """One stream's part of a double block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.heads = Heads(width, heads)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, -1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DoubleBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.image, self.text = Stream(width, heads), Stream(width, heads)

    def forward(self, image: Tensor, text: Tensor, condition: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        of_image, of_text = self.image.modulations(condition), self.text.modulations(condition)
        parts = zip(
            self.text.heads(modulated(text, *of_text[:2])),
            self.image.heads(modulated(image, *of_image[:2])),
            strict=True,
        )
        q, k, v = (torch.cat(pair, 2) for pair in parts)
        both = attention(q, k, v, table)
        results = []
        for stream, x, mods, seen in (
            (self.image, image, of_image, both[:, text.shape[1] :]),
            (self.text, text, of_text, both[:, : text.shape[1]]),
        ):
            x = x + mods[2] * stream.project(seen)
            results.append(x + mods[5] * stream.mlp(modulated(x, *mods[3:5])))
        return results[0], results[1]


class SingleBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        self.heads = Heads(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(5 * width, width)

    def forward(self, x: Tensor, condition: Tensor, table: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(F.silu(condition)).unsqueeze(1).chunk(3, -1)
        inner = modulated(x, shift, scale)
        query, key, value = self.heads(inner)
        seen = attention(query, key, value, table)
        return x + gate * self.down(torch.cat((seen, F.gelu(self.up(inner), approximate="tanh")), -1))


class Flux(nn.Module):
    """Predicts the velocity of each patch of a picture.

    Args:
        width: the width of the tokens.
        heads: the number of attention heads.
        side: the side of the picture, in patches.
        words: the length of the text.
        double: the number of blocks with two streams.
        single: the number of blocks with one sequence.
        channels: the numbers of a patch.
    """

    def __init__(
        self, width: int, heads: int, side: int, words: int, *, double: int = 1, single: int = 2, channels: int = 16
    ) -> None:
        super().__init__()
        self.width, self.side, self.words = width, side, words
        self.image_in, self.text_in = nn.Linear(channels, width), nn.Linear(width, width)
        self.time_in = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.pairs = nn.ModuleList(DoubleBlock(width, heads) for _ in range(double))
        self.singles = nn.ModuleList(SingleBlock(width, heads) for _ in range(single))
        self.last_modulation, self.last = nn.Linear(width, 2 * width), nn.Linear(width, channels)
        self.axis = width // heads // 2

    def forward(self, image: Tensor, text: Tensor, time: Tensor) -> Tensor:
        """Takes patches (B, side * side, channels), text (B, words, width) and a time from 0 to 1 (B)."""
        rows = torch.arange(self.side, device=image.device).repeat_interleave(self.side)
        columns = torch.arange(self.side, device=image.device).repeat(self.side)
        nowhere = torch.zeros(self.words, dtype=rows.dtype, device=rows.device)
        table = torch.cat([rotation(torch.cat((nowhere, places)), self.axis) for places in (rows, columns)], -1)
        condition = self.time_in(waves(time, 64))
        image, text = self.image_in(image), self.text_in(text)
        for block in self.pairs:
            image, text = block(image, text, condition, table)
        both = torch.cat((text, image), 1)
        for block in self.singles:
            both = block(both, condition, table)
        shift, scale = self.last_modulation(F.silu(condition)).unsqueeze(1).chunk(2, -1)
        return self.last(modulated(both[:, self.words :], shift, scale))
