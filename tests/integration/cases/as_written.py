"""Models as people write them, each of a kind that failed to build or was not one engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


class Written(nn.Module):
    """A module with parts, whose forward is a function of the module and its inputs."""

    def __init__(self, function: Callable[..., Any], parts: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)


class One(Written):
    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Two(Written):
    def forward(self, x: Tensor, t: Tensor) -> Any:
        return self.function(self, x, t)


@dataclass(frozen=True)
class Model:
    """A model to build, and what the artifact must have.

    Attributes:
        function: the forward, a function of the module and its inputs.
        shapes: the shapes of the example's inputs, which are normally distributed.
        parts: makes the module's parts.
        ranges: for each dynamic dimension ``x.2``, its smallest, its example's and its largest size.
        engines: the number of engines.
        in_torch: the operators that stay in PyTorch.
        data: makes an input of a shape that is not normally distributed.
    """

    function: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    parts: Callable[[], dict[str, Any]] = dict
    ranges: dict[str, tuple[int, int, int]] | None = None
    engines: int = 1
    in_torch: tuple[str, ...] = ()
    data: Callable[[tuple[int, ...]], Tensor] = torch.randn

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return (One if len(self.shapes) == 1 else Two)(self.function, self.parts()).eval()

    def dynamic(self) -> tuple[str, ...]:
        return tuple(f"{place}={low}:{mid}:{high}" for place, (low, mid, high) in (self.ranges or {}).items())

    def calls(self) -> list[tuple[Tensor, ...]]:
        """Returns inputs of the example's sizes, of the ends of the ranges, and of odd and even sizes between."""
        torch.manual_seed(1)
        ranges = self.ranges or {}
        sizes = [{place: mid for place, (_, mid, _) in ranges.items()}]
        if ranges:
            sizes += [{place: of[end] for place, of in ranges.items()} for end in (0, 2)]
            sizes.append({p: high - 1 if i % 2 else low + 1 for i, (p, (low, _, high)) in enumerate(ranges.items())})
        return [self._inputs(of) for of in sizes]

    def _inputs(self, sizes: dict[str, int]) -> tuple[Tensor, ...]:
        shapes = [list(shape) for shape in self.shapes]
        for place, size in sizes.items():
            name, _, dim = place.partition(".")
            shapes["xt".index(name)][int(dim)] = size
        return tuple(self.data(tuple(shape)) for shape in shapes)


BATCH = {"x.0": (1, 2, 8)}
PICTURE = {"x.2": (16, 24, 40), "x.3": (16, 36, 40)}
LENGTH = {"x.1": (4, 8, 16)}


def conv(channels: int = 3, out: int = 3) -> Callable[[], dict[str, Any]]:
    return lambda: {"c": nn.Conv2d(channels, out, 3, padding=1)}


def linear() -> dict[str, Any]:
    return {"l": nn.Linear(8, 8)}


def norm_and_conv() -> dict[str, Any]:
    return {"n": nn.LayerNorm(8), "c": nn.Conv2d(8, 8, 3, padding=1)}


def channels_last(s: Any, x: Tensor) -> Tensor:
    normed: Tensor = s.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return normed


def convnext_block(s: Any, x: Tensor) -> Tensor:
    y = s.c(channels_last(s, x)).permute(0, 2, 3, 1)
    return F.adaptive_avg_pool2d(x + F.gelu(s.n(y)).permute(0, 3, 1, 2), 1).flatten(1)


def reduced_tokens(s: Any, x: Tensor) -> Tensor:
    """The attention of PVT and SegFormer, whose keys are of a smaller picture."""
    batch, _, channels = x.shape
    picture = s.c(x.transpose(1, 2).reshape(batch, channels, 4, 4)).reshape(batch, channels, -1).transpose(1, 2)
    keys: Tensor = s.n(picture)
    return F.scaled_dot_product_attention(x[:, None], keys[:, None], keys[:, None])[:, 0] + x


def written_view(s: Any, x: Tensor) -> Tensor:
    y = s.c(s.n(x).permute(0, 3, 1, 2))
    y.reshape(-1).mul_(2)  # a copy, if y is channels last
    return y + 0


def parted(s: Any, x: Tensor, t: Tensor) -> Any:
    a, b = s.l(torch.cat([t, x], 1)).split_with_sizes([t.shape[1], x.shape[1]], 1)
    return a * 2, b + 1


def guided(s: Any, x: Tensor) -> Tensor:
    a, b = s.l(torch.cat([x, x * 2])).chunk(2)
    return a + 7.5 * (b - a)


def middle(s: Any, x: Tensor) -> Any:
    y = s.l(x)
    return y[:, x.shape[1] // 2], y[:, -1], y.narrow(1, x.shape[1] - 3, 3), torch.tensor_split(y, [2, -1], dim=1)


def mask_by_slices(s: Any, x: Tensor) -> Tensor:
    mask = torch.zeros((1, x.shape[2], x.shape[3]), dtype=x.dtype)
    for value, rows in enumerate((slice(0, -8), slice(-8, -4), slice(-4, None))):
        mask[:, rows] = value
    return s.c(x) + mask


def assign_half(s: Any, x: Tensor) -> Tensor:
    y = s.l(x).clone()
    y[:, :, 0] = y[:, :, 0] / 2
    return y


def assign_column(s: Any, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0
    return y.sigmoid()


def shifted_in_time(s: Any, x: Tensor) -> Tensor:
    y, shifted = s.l(x), torch.zeros_like(x)
    shifted[:-1, :2] = y[1:, :2]
    shifted[1:, 2:4] = y[:-1, 2:4]
    shifted[:, 4:] = y[:, 4:]
    return shifted


def inner_rows(s: Any, x: Tensor) -> Tensor:
    y = s.l(x).clone()
    y[:, 0] = x.shape[1]
    y[:, 1:-1, 2:4] += x[:, 1:-1, 2:4]
    y[x > 1] = -1
    return y


def warped(s: Any, x: Tensor) -> Tensor:
    y = F.interpolate(s.c(x), scale_factor=0.25, mode="bilinear")
    return s.c(y / ((y.shape[3] - 1.0) / 2.0))


def padded_to_sixteen(s: Any, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    y = s.c(F.pad(x, (0, -width % 16, 0, -height % 16)))
    return y[:, :, :height, :width]


def other_factors(s: Any, x: Tensor) -> Any:
    y = s.c(x)
    larger = F.interpolate(y, scale_factor=1.5, mode="bilinear")
    return F.interpolate(y, scale_factor=0.5), F.interpolate(larger, scale_factor=0.4, mode="bicubic")


def rife_grid(s: Any, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    across = torch.linspace(-1.0, 1.0, width).view(1, 1, 1, width).expand(batch, -1, height, -1)
    down = torch.linspace(-1.0, 1.0, height).view(1, 1, height, 1).expand(batch, -1, -1, width)
    return torch.cat([across, down], 1) + s.c(x)[:, :2] / ((width - 1.0) / 2.0)


def sam_coordinates(s: Any, x: Tensor) -> Any:
    height, width = x.shape[-2:]
    axes = torch.linspace(0.5, height - 0.5, height), torch.linspace(0.5, width - 0.5, width)
    down, across = torch.meshgrid(*axes, indexing="ij")
    return s.c(x) + down / height, across / max(width - 1, 1)


def average(x: Tensor, *args: int, **options: bool) -> Tensor:
    return F.avg_pool2d(x, *args, ceil_mode=True, **options)


def ceil_pools(s: Any, x: Tensor) -> Any:
    averages = average(x, 3, 2, 1), average(x, 3, 2, 1, count_include_pad=False), average(x, 2, 2)
    return s.c(F.max_pool2d(x, 3, 2, ceil_mode=True)), *averages


def pyramid(s: Any, x: Tensor) -> Tensor:
    y = s.c(x)
    levels = [F.adaptive_avg_pool2d(y, cells) for cells in (1, 2, 3)]
    return torch.cat([y, *(F.interpolate(level, size=y.shape[2:], mode="bilinear") for level in levels)], 1)


def stepped(s: Any, x: Tensor) -> Tensor:
    return F.interpolate(s.c(x), size=(x.shape[2], x.shape[3]), mode="nearest") + x


def hiera_attention(s: Any, x: Tensor) -> Tensor:
    batch = x.shape[0]
    q, k, v = s.l(x).reshape(batch, -1, 4, 3, 2, 8).permute(3, 0, 4, 2, 1, 5)
    q = q.view(batch, 2, 4, 2, -1, 8).max(dim=3).values
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 3).reshape(batch, -1, 16)


def attention_forms(s: Any, x: Tensor) -> Any:
    attend = F.scaled_dot_product_attention
    return attend(s.l(x), x, x, is_causal=True), attend(s.l(x)[:, None], x[:1, None], x[:1, None, :, :5])


def camera(s: Any, x: Tensor) -> Tensor:
    picture: Tensor = s.c(x.permute(0, 3, 1, 2).float() / 255)
    return picture


def camera_and_back(s: Any, x: Tensor) -> Tensor:
    y = s.c(x[:, 1:].flip(-1).permute(0, 3, 1, 2).float() / 255)
    return (y.sigmoid() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def bytes_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def stride_two() -> dict[str, Any]:
    return {"c": nn.Conv2d(3, 3, 3, stride=2, padding=1)}


def repeated(s: Any, x: Tensor) -> Any:
    return x.mean(1, keepdim=True).repeat(1, x.shape[1]), s.t.repeat(2, x.shape[1])


def patches(s: Any, x: Tensor) -> Any:
    """Patches as in Flux, and overlapping windows."""
    y = s.c(x)
    return y.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3), y.unfold(3, 4, 3).mean(-1)


def neighbours(s: Any, x: Tensor) -> Tensor:
    """Finds the points nearest to a few, as PointNet++ does."""
    return torch.cdist(s.l(x)[:, :4], x).topk(3, dim=-1, largest=False).values


def windows(_s: Any, x: Tensor) -> Tensor:
    c, height, width = x.shape[1:]
    x = F.pad(x, (0, (8 - width % 8) % 8, 0, (8 - height % 8) % 8), "reflect")
    height, width = x.shape[-2:]
    parts = x.view(-1, c, height // 8, 8, width // 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 64, c).softmax(1)
    batch = int(parts.shape[0] / (height * width / 8 / 8))
    whole = parts.view(batch, height // 8, width // 8, 8, 8, -1).permute(0, 1, 3, 2, 4, 5)
    return whole.reshape(batch, height, width, -1)


def padded_if_needed(s: Any, x: Tensor) -> Tensor:
    right, below = (16 - x.shape[3] % 16) % 16, (16 - x.shape[2] % 16) % 16
    if right or below:
        x = F.pad(x, (0, right, 0, below))
    return s.c(x)


def last_rows(_s: Any, x: Tensor) -> Tensor:
    y = x[:, :, ::8, ::8].cumsum(2)
    return y / (y[:, :, -1:].abs() + 1)


MODELS = {
    "channels_last_conv": Model(lambda s, x: s.c(channels_last(s, x)), [(2, 8, 8, 8)], norm_and_conv, BATCH),
    "channels_last_pool": Model(
        lambda s, x: F.adaptive_avg_pool2d(channels_last(s, x), 1), [(2, 8, 8, 8)], norm_and_conv, BATCH
    ),
    "tokens_to_conv": Model(
        lambda s, x: s.c(s.n(x).transpose(1, 2).reshape(x.shape[0], 8, 4, 4)), [(2, 16, 8)], norm_and_conv, BATCH
    ),
    "a block of ConvNeXt": Model(convnext_block, [(2, 8, 8, 8)], norm_and_conv, {**BATCH, "x.2": (1, 8, 16)}),
    "attention to a smaller picture": Model(
        reduced_tokens, [(2, 16, 8)], lambda: {"n": nn.LayerNorm(8), "c": nn.Conv2d(8, 8, 2, 2)}, BATCH
    ),
    "a view of a convolution that is written to": Model(written_view, [(2, 4, 4, 8)], norm_and_conv, BATCH),
    "split_sizes": Model(parted, [(1, 8, 8), (1, 3, 8)], linear, {**LENGTH, "t.1": (1, 3, 9)}),
    "chunks of a batch": Model(guided, [(2, 8)], linear, BATCH),
    "parts from the middle and the end": Model(middle, [(1, 8, 8)], linear, LENGTH),
    "last_rows": Model(lambda s, x: s.c(x)[:, :, -4:] * 2, [(1, 3, 24, 36)], conv(), PICTURE),
    "mask_by_slices": Model(mask_by_slices, [(1, 3, 24, 36)], conv(), PICTURE),
    "assign_half": Model(assign_half, [(1, 3, 8)], linear, {"x.1": (2, 3, 8)}),
    "assign_column": Model(assign_column, [(2, 5)]),
    "temporal shift": Model(shifted_in_time, [(4, 8)], linear, {"x.0": (1, 4, 8)}),
    "inner rows, and where a mask says": Model(inner_rows, [(1, 5, 8)], linear, {"x.1": (3, 5, 8)}),
    "scale_half": Model(
        lambda s, x: F.interpolate(s.c(x), scale_factor=0.5, mode="bilinear"), [(1, 3, 24, 36)], conv(), PICTURE
    ),
    "warp_size": Model(warped, [(1, 3, 24, 36)], conv(), PICTURE),
    "other factors, nearest and bicubic": Model(other_factors, [(1, 3, 24, 36)], conv(), PICTURE),
    "padded to a multiple and cut": Model(padded_to_sixteen, [(1, 3, 24, 36)], conv(), PICTURE),
    "linspace_size": Model(
        lambda s, x: s.c(x) + torch.linspace(-1, 1, x.shape[3]), [(1, 3, 24, 36)], conv(), PICTURE
    ),
    "RIFE's grid": Model(rife_grid, [(1, 3, 24, 36)], conv(), PICTURE),
    "SAM's coordinates": Model(sam_coordinates, [(1, 3, 24, 36)], conv(), PICTURE),
    "avg_pool_ceil": Model(
        lambda s, x: s.c(average(x, 2, 2, count_include_pad=False)), [(2, 3, 9, 12)], conv()
    ),
    "pools with ceil of any size": Model(
        ceil_pools, [(2, 3, 10, 13)], conv(), {"x.0": (1, 2, 4), "x.2": (8, 10, 33), "x.3": (8, 13, 33)}
    ),
    "pools of one dimension": Model(
        lambda s, x: (F.max_pool1d(x, 3, 2, 1), F.avg_pool1d(x, 2)), [(1, 3, 10)], ranges={"x.2": (7, 10, 20)}
    ),
    "adaptive_pool": Model(
        lambda s, x: F.adaptive_avg_pool2d(s.c(x), (2, 3)), [(1, 3, 32, 32)], conv(), {"x.2": (16, 32, 64)}
    ),
    "adaptive cells that do not divide": Model(
        lambda s, x: F.adaptive_avg_pool2d(s.c(x), (5, 7)), [(1, 3, 13, 17)], conv()
    ),
    "pyramid pooling": Model(pyramid, [(1, 3, 32, 48)], conv(), {"x.2": (16, 32, 64), "x.3": (16, 48, 64)}),
    "resize_like": Model(
        stepped, [(2, 3, 32, 32)], stride_two, {"x.0": (1, 2, 4), "x.2": (16, 32, 64), "x.3": (16, 32, 64)}
    ),
    "repeat_rows": Model(
        lambda s, x: x.mean(1, keepdim=True).repeat(1, x.shape[1]), [(2, 8)], ranges={"x.1": (2, 8, 16)}
    ),
    "repeats of rows and of a token": Model(repeated, [(2, 8)], lambda: {"t": torch.ones(1, 3)}, {"x.1": (2, 8, 16)}),
    "empty_of_transposed": Model(
        lambda s, x: torch.empty_like(s.l(x).transpose(1, 2)).copy_(s.l(x).transpose(1, 2)) + 1, [(2, 4, 8)], linear
    ),
    "camera_image": Model(
        camera, [(1, 8, 8, 3)], conv(), {"x.1": (8, 8, 16)}, data=bytes_of, in_torch=("aten._to_copy.default",)
    ),
    "camera image in and out": Model(
        camera_and_back, [(1, 8, 8, 3)], conv(), data=bytes_of, in_torch=("aten._to_copy.default",)
    ),
    "hiera": Model(hiera_attention, [(2, 32, 16)], lambda: {"l": nn.Linear(16, 48)}, BATCH),
    "attention of three dimensions, and of other values": Model(attention_forms, [(2, 6, 8)], linear),
    "queries that are constant": Model(
        lambda s, x: s.d(s.q.expand(x.shape[0], -1, -1), x),
        [(2, 8, 8)],
        lambda: {"d": nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), "q": torch.ones(1, 5, 8)},
        LENGTH,
    ),
    "patches by unfold": Model(patches, [(1, 3, 24, 36)], conv(), PICTURE),
    "distances of points": Model(neighbours, [(1, 8, 8)], linear, LENGTH),
    "a batch by len()": Model(lambda s, x: x.reshape(len(x), -1) * 2, [(1, 3, 4)], ranges=BATCH),
    "the last row of a part, of a batch from 1": Model(
        last_rows, [(1, 3, 24, 32)], ranges={"x.0": (1, 1, 4), "x.2": (16, 24, 40), "x.3": (16, 32, 40)}
    ),
    "windows counted back into pictures": Model(
        windows, [(1, 3, 24, 32)], ranges={"x.0": (1, 1, 4), "x.2": (12, 24, 40), "x.3": (12, 32, 40)}
    ),
    "padding that the example does not need": Model(
        padded_if_needed, [(1, 3, 16, 16)], conv(), {"x.2": (8, 16, 40), "x.3": (8, 16, 40)}
    ),
    "input_called_t": Model(lambda s, x, t: s.l(x) + t, [(2, 8), (2, 8)], linear),
}  # fmt: skip
