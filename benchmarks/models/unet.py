"""A UNet of latent diffusion, after Stable Diffusion: residual blocks, attention to the picture and to a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.models.flux import waves


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, condition: int) -> None:
        super().__init__()
        self.first_norm, self.first = nn.GroupNorm(8, channels), nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(condition, out)
        self.second_norm, self.second = nn.GroupNorm(8, out), nn.Conv2d(out, out, 3, padding=1)
        self.past = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.first(F.silu(self.first_norm(x))) + self.time(F.silu(condition))[:, :, None, None]
        return self.past(x) + self.second(F.silu(self.second_norm(h)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, seen: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, width, bias=False) for size in (width, seen, seen))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.query, x), (self.key, seen), (self.value, seen))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Attends to itself, then to the text; the feed-forward layer is gated (GEGLU)."""

    def __init__(self, channels: int, heads: int, text: int) -> None:
        super().__init__()
        self.norm, self.into = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 1)
        self.self_norm, self.text_norm, self.mlp_norm = (nn.LayerNorm(channels) for _ in range(3))
        self.to_self, self.to_text = Attention(channels, heads, channels), Attention(channels, heads, text)
        self.up, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        h = self.into(self.norm(x)).flatten(2).transpose(1, 2)
        h = h + self.to_self(inner := self.self_norm(h), inner)
        h = h + self.to_text(self.text_norm(h), text)
        value, gate = self.up(self.mlp_norm(h)).chunk(2, -1)
        h = h + self.down(value * F.gelu(gate))
        return x + self.out(h.transpose(1, 2).unflatten(-1, x.shape[-2:]))


class UNet(nn.Module):
    """Predicts the noise in a latent (B, 4, H, W).

    Args:
        widths: the channels of each level, the finest first; all levels but the first have attention.
        text: the width of the text.
    """

    def __init__(self, widths: Sequence[int], text: int, *, heads: int = 4) -> None:
        super().__init__()
        condition = 4 * widths[0]
        self.time_in = nn.Sequential(nn.Linear(64, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.first = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.attend_down, self.attend_up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            self.down.append(Residual(before, width, condition))
            self.attend_down.append(Transformer(width, heads, text) if level else nn.Identity())
            self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            before = width
        self.middle = Residual(before, before, condition)
        for level, width in reversed(list(enumerate(widths))):
            self.up.append(Residual(before + width, width, condition))
            self.attend_up.append(Transformer(width, heads, text) if level else nn.Identity())
            before = width
        self.norm, self.last = nn.GroupNorm(8, widths[0]), nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, latent: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """Takes a latent (B, 4, H, W), a time from 0 to 1 (B) and a text (B, words, width)."""
        condition = self.time_in(waves(time, 64))
        x, skipped = self.first(latent), []
        for block, attend, shrink in zip(self.down, self.attend_down, self.shrink, strict=True):
            x = block(x, condition)
            x = attend(x, text) if isinstance(attend, Transformer) else x
            skipped.append(x)
            x = shrink(x)
        x = self.middle(x, condition)
        for block, attend in zip(self.up, self.attend_up, strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat((x, skipped.pop()), 1), condition)
            x = attend(x, text) if isinstance(attend, Transformer) else x
        return self.last(F.silu(self.norm(x)))
