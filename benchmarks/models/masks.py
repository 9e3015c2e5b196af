"""A decoder of masks, after Segment Anything: tokens and a picture attend to each other, and tokens become masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


class Attention(nn.Module):
    """Attention whose inner width may be smaller than the outer one."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.query, q), (self.key, k), (self.value, v))
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class TwoWay(nn.Module):
    """Tokens attend to themselves and to the picture, and the picture to the tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.to_self = Attention(width, heads, width)
        self.to_picture, self.to_tokens = (Attention(width, heads, width // 2) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, 8 * width), nn.ReLU(), nn.Linear(8 * width, width))
        self.self_norm, self.picture_norm, self.mlp_norm, self.tokens_norm = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens: Tensor, picture: Tensor, places: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        q = tokens + first
        tokens = self.self_norm(tokens + self.to_self(q, q, tokens))
        tokens = self.picture_norm(tokens + self.to_picture(tokens + first, picture + places, picture))
        tokens = self.mlp_norm(tokens + self.mlp(tokens))
        picture = self.tokens_norm(picture + self.to_tokens(picture + places, tokens + first, tokens))
        return tokens, picture


class Channels(nn.Module):
    """Layer norm over the channels of a picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MaskDecoder(nn.Module):
    """Computes masks (B, masks, 4 * side * scale, 4 * side * scale) and their scores (B, masks).

    Args:
        side: the side of the picture's features.
        masks: the number of masks.
        scale: the factor by which the masks are resized bilinearly at the end; 1 leaves them.
    """

    def __init__(self, width: int, heads: int, side: int, *, masks: int = 4, layers: int = 2, scale: int = 1) -> None:
        super().__init__()
        self.masks, self.side, self.scale = masks, side, scale
        self.mask_tokens, self.score_token = nn.Embedding(masks, width), nn.Embedding(1, width)
        self.layers = nn.ModuleList(TwoWay(width, heads) for _ in range(layers))
        self.last, self.last_norm = Attention(width, heads, width // 2), nn.LayerNorm(width)
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            Channels(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.painters = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width // 8)) for _ in range(masks)
        )
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, masks))

    def forward(self, picture: Tensor, places: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Takes a picture's features and places (B, width, side, side) and prompts (B, number, width)."""
        own = torch.cat((self.score_token.weight, self.mask_tokens.weight)).expand(picture.shape[0], -1, -1)
        tokens = first = torch.cat((own, prompts), 1)
        seen, places = (value.flatten(2).transpose(1, 2) for value in (picture, places))
        for layer in self.layers:
            tokens, seen = layer(tokens, seen, places, first)
        tokens = self.last_norm(tokens + self.last(tokens + first, seen + places, seen))
        large = self.enlarge(seen.transpose(1, 2).unflatten(-1, (self.side, self.side)))
        paint = torch.stack([painter(tokens[:, 1 + i]) for i, painter in enumerate(self.painters)], 1)
        masks = (paint @ large.flatten(2)).unflatten(-1, large.shape[-2:])
        if self.scale > 1:
            masks = F.interpolate(masks, scale_factor=float(self.scale), mode="bilinear")
        return masks, self.score(tokens[:, 0])
