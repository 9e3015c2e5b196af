"""Small models of the kinds that people compile, for benchmarks: ``trtcross build benchmarks.models:NAME``.

They need only torch (three of them torchvision), and have the same weights in every version of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models.flux import Flux
from benchmarks.models.interpolation import Between
from benchmarks.models.llama import Llama
from benchmarks.models.masks import MaskDecoder
from benchmarks.models.unet import UNet
from benchmarks.models.weights import drawn, settled

Example = tuple[nn.Module, tuple[Any, ...]]


def _between(fractions: list[int], height: int = 128, width: int = 192) -> Example:
    torch.manual_seed(0)
    model = Between(fractions).eval()
    return model, (torch.rand(1, 3, height, width), torch.rand(1, 3, height, width))


def one_stage() -> Example:
    """Frame interpolation without any resizing."""
    return _between([1])


def one_coarse_stage() -> Example:
    """Frame interpolation at a quarter of the size."""
    return _between([4])


def three_stages() -> Example:
    """Frame interpolation from coarse to fine."""
    return _between([4, 2, 1])


def interpolation() -> Example:
    """Frame interpolation of a larger picture, for its speed."""
    return _between([4, 2, 1], 512, 768)


def flux() -> Example:
    """A diffusion transformer, 1024 patches and 128 words."""
    model = settled(Flux(192, 3, 32, 128))
    return model, (drawn("image", (1, 1024, 16)), drawn("text", (1, 128, 192)), torch.tensor([0.7]))


def flux_block() -> Example:
    """A diffusion transformer of one block of each kind, as small as is useful."""
    model = settled(Flux(64, 2, 8, 16, double=1, single=1))
    return model, (drawn("image", (1, 64, 16)), drawn("text", (1, 16, 64)), torch.tensor([0.7]))


def unet() -> Example:
    """A UNet of latent diffusion, for a latent of 64 by 64."""
    model = settled(UNet((48, 96, 144), 96))
    return model, (drawn("latent", (1, 4, 64, 64)), torch.tensor([0.7]), drawn("text", (1, 77, 96)))


def llama() -> Example:
    """A language model's prefill of 1024 tokens."""
    model = settled(Llama(256, 4, 2, 3, 1000))
    return model, (torch.arange(1024).mul(7919).remainder(1000).unsqueeze(0),)


def mask_decoder() -> Example:
    """Segment Anything's decoder with three prompts."""
    model = settled(MaskDecoder(128, 4, 32))
    sizes = (1, 128, 32, 32)
    return model, (drawn("picture", sizes), drawn("places", sizes), drawn("prompts", (1, 3, 128)))


def mask_decoder_block() -> Example:
    """Segment Anything's decoder with one layer, as small as is useful."""
    model = settled(MaskDecoder(32, 2, 8, layers=1))
    sizes = (1, 32, 8, 8)
    return model, (drawn("picture", sizes), drawn("places", sizes), drawn("prompts", (1, 3, 32)))


def resnet() -> Example:
    """A ResNet of BasicBlocks, an eighth of ResNet-18's weights."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> Any:
            return super()._make_layer(block, planes * 3 // 8 // 8 * 8, blocks, stride, dilate)

    model = Narrow(BasicBlock, [2, 2, 2, 2])
    model.fc = nn.Linear(model.inplanes, 100)
    return settled(model), (drawn("image", (8, 3, 224, 224)),)


def swin() -> Example:
    """A Swin transformer of three stages."""
    from torchvision.models.swin_transformer import SwinTransformer

    model = SwinTransformer([4, 4], 48, [2, 2, 2], [2, 4, 8], [7, 7], num_classes=100)
    return settled(model), (drawn("image", (4, 3, 224, 224)),)


def vit() -> Example:
    """A vision transformer, six layers of ViT-Ti/16."""
    from torchvision.models.vision_transformer import VisionTransformer

    model = VisionTransformer(224, 16, 6, 3, 192, 768, num_classes=100)
    return settled(model), (drawn("image", (8, 3, 224, 224)),)


class Inverted(nn.Module):
    """An inverted bottleneck with squeeze and excitation, after EfficientNet."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.wide = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU())
        self.deep = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.SiLU()
        )
        self.squeeze, self.excite = nn.Conv2d(inner, channels // 4, 1), nn.Conv2d(channels // 4, inner, 1)
        self.narrow = nn.Sequential(nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.keeps = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        h = self.deep(self.wide(x))
        h = h * torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        h = self.narrow(h)
        return x + h if self.keeps else h


def efficientnet() -> Example:
    """Inverted bottlenecks, after EfficientNet."""
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1),
        *(
            Inverted(*sizes)
            for sizes in ((24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 2), (80, 80, 1), (80, 112, 2), (112, 112, 1))
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(112, 100),
    )
    return settled(model), (drawn("image", (8, 3, 224, 224)),)


class Encoder(nn.Module):
    """A transformer over words, then their mean where the mask is set, as a unit vector for each sentence."""

    def __init__(self, width: int, heads: int, layers: int, words: int) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(words, width), nn.Embedding(128, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True)
        self.layers = nn.ModuleList(nn.TransformerEncoder(layer, 1).layers[0] for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.places.weight[: tokens.shape[1]]
        hidden = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(mask == 0, float("-inf"))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        weights = mask.unsqueeze(-1).to(x.dtype)
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=1)


def encoder() -> Example:
    """A sentence encoder, after MiniLM: eight sentences of up to 128 words."""
    tokens = torch.arange(8 * 128).mul(7919).remainder(1000).reshape(8, 128)
    mask = (torch.arange(128) < torch.arange(16, 144, 16).unsqueeze(1)).long()
    return settled(Encoder(192, 6, 4, 1000)), (tokens, mask)
