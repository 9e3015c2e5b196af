"""Frame interpolation and optical flow, written from their papers, for two frames of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.zoo.row import Made, Row

GROUP = "interpolation and flow"
ANY_SIZE = "64:96:160"


def frames(size: int = 96) -> tuple[Tensor, Tensor]:
    """Returns two smooth frames, of which the second is shifted a little."""
    coarse = torch.rand(1, 3, size // 8 + 2, size // 8 + 2, generator=torch.Generator().manual_seed(5))
    whole = F.interpolate(coarse, size=(size + 8, size + 8), mode="bicubic", align_corners=False).clamp(0, 1)
    return whole[..., :size, :size].contiguous(), whole[..., 3 : size + 3, 2 : size + 2].contiguous()


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Samples the picture at each pixel's place plus its flow in pixels; outside, the border continues."""
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = x + flow[:, 0], y + flow[:, 1]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _unit(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1), nn.PReLU(outer))


class _Refine(nn.Module):
    """Refines the flow in both directions and the mask at one scale, from the frames and the warped frames."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.down = nn.Sequential(_unit(inner, width // 2, 2), _unit(width // 2, width, 2))
        self.body = nn.Sequential(*(_unit(width, width) for _ in range(3)))
        self.up = nn.ConvTranspose2d(width, 5, 4, 2, 1)

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        size = x.shape[-2:]
        x = F.interpolate(x, scale_factor=1 / scale, mode="bilinear", align_corners=False)
        if flow is not None:
            small = F.interpolate(flow, scale_factor=1 / scale, mode="bilinear", align_corners=False) / scale
            x = torch.cat([x, small], 1)
        x = self.down(x)
        raised = F.interpolate(self.up(x + self.body(x)), size=size, mode="bilinear", align_corners=False)
        return raised[:, :4] * scale, raised[:, 4:]


class IntermediateFlow(nn.Module):
    """RIFE (Huang et al., 2022): estimates the flow to a frame between from coarse to fine, and blends by a mask."""

    def __init__(self, width: int = 24, scales: tuple[float, ...] = (4.0, 2.0, 1.0)) -> None:
        super().__init__()
        self.scales = scales
        self.stages = nn.ModuleList(_Refine(7 if not place else 7 + 6 + 1 + 4, width) for place in range(len(scales)))

    def forward(self, first: Tensor, second: Tensor, time: Tensor) -> Tensor:
        when = time.view(-1, 1, 1, 1).expand(-1, 1, *first.shape[-2:])
        pair = torch.cat([first, second, when], 1)
        flow, mask, warped = None, None, (first, second)
        for stage, scale in zip(self.stages, self.scales, strict=True):
            if flow is None or mask is None:
                flow, mask = stage(pair, None, scale)
            else:
                more, blend = stage(torch.cat([pair, *warped, mask], 1), flow, scale)
                flow, mask = flow + more, mask + blend
            warped = warp(first, flow[:, :2]), warp(second, flow[:, 2:])
        share = mask.sigmoid()
        return warped[0] * share + warped[1] * (1 - share)


class _Features(nn.Sequential):
    def __init__(self, outer: int, normed: bool) -> None:
        layers: list[nn.Module] = []
        for inner, width, stride in ((3, 16, 2), (16, 24, 2), (24, 32, 2)):
            layers += [
                nn.Conv2d(inner, width, 3, stride, 1),
                nn.InstanceNorm2d(width) if normed else nn.BatchNorm2d(width),
            ]
            layers += [nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(32, outer, 1))


class _Gated(nn.Module):
    """A convolutional GRU in two passes, along rows and along columns."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        for name, size, pad in (("row", (1, 5), (0, 2)), ("column", (5, 1), (2, 0))):
            for gate in ("update", "reset", "new"):
                setattr(self, f"{name}_{gate}", nn.Conv2d(hidden + inner, hidden, size, padding=pad))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        for name in ("row", "column"):
            both = torch.cat([hidden, x], 1)
            update = getattr(self, f"{name}_update")(both).sigmoid()
            reset = getattr(self, f"{name}_reset")(both).sigmoid()
            new = getattr(self, f"{name}_new")(torch.cat([reset * hidden, x], 1)).tanh()
            hidden = (1 - update) * hidden + update * new
        return hidden


class Raft(nn.Module):
    """RAFT (Teed and Deng, 2020): refines the flow by the correlation of all pairs around each pixel's place."""

    def __init__(self, hidden: int = 32, levels: int = 3, radius: int = 3, steps: int = 3) -> None:
        super().__init__()
        self.hidden, self.levels, self.radius, self.steps = hidden, levels, radius, steps
        self.features, self.context = _Features(48, True), _Features(2 * hidden, False)
        looked = levels * (2 * radius + 1) ** 2
        self.motion = nn.Sequential(nn.Conv2d(looked + 2, 48, 3, padding=1), nn.ReLU())
        self.gated = _Gated(hidden, 48 + hidden + 2)
        self.flow = nn.Sequential(nn.Conv2d(hidden, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 3, padding=1))
        self.mask = nn.Sequential(nn.Conv2d(hidden, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 9 * 64, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        one, two = self.features(2 * first - 1), self.features(2 * second - 1)
        pyramid = self._pyramid(one, two)
        hidden, context = self.context(2 * first - 1).split(self.hidden, 1)
        hidden, context = hidden.tanh(), context.relu()
        batch, _, height, width = one.shape
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        start = torch.stack([x, y]).float().expand(batch, 2, height, width)
        places = start
        for _ in range(self.steps):
            flow = places - start
            moved = torch.cat([self.motion(torch.cat([self._looked_up(pyramid, places), flow], 1)), flow, context], 1)
            hidden = self.gated(hidden, moved)
            places = places + self.flow(hidden)
        return self._raised(places - start, self.mask(hidden))

    def _pyramid(self, one: Tensor, two: Tensor) -> list[Tensor]:
        batch, channels, height, width = one.shape
        pairs = one.flatten(2).transpose(1, 2) @ two.flatten(2) / channels**0.5
        pyramid = [pairs.reshape(batch * height * width, 1, height, width)]
        for _ in range(self.levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        return pyramid

    def _looked_up(self, pyramid: list[Tensor], places: Tensor) -> Tensor:
        batch, _, height, width = places.shape
        around = torch.arange(-self.radius, self.radius + 1).float()
        dy, dx = torch.meshgrid(around, around, indexing="ij")
        window = torch.stack([dx, dy], -1)[None]
        found = []
        for level, correlation in enumerate(pyramid):
            centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**level
            high, wide = correlation.shape[-2:]
            grid = (centres + window) * 2 / torch.tensor([wide - 1, high - 1]) - 1
            sampled = F.grid_sample(correlation, grid, align_corners=True)
            found.append(sampled.view(batch, height, width, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2)

    def _raised(self, flow: Tensor, mask: Tensor) -> Tensor:
        """Upsamples the flow eight times; each pixel is a learnt mean of the nine around it."""
        batch, _, height, width = flow.shape
        weights = mask.view(batch, 1, 9, 8, 8, height, width).softmax(2)
        around = F.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        raised = (weights * around).sum(2).permute(0, 1, 4, 2, 5, 3)
        return raised.reshape(batch, 2, 8 * height, 8 * width)


class CostVolume(nn.Module):
    """PWC-Net (Sun et al., 2018): warps the second frame's features at each level, and compares neighbours."""

    def __init__(self, reach: int = 2, widths: tuple[int, ...] = (16, 24, 32)) -> None:
        super().__init__()
        self.reach = reach
        pairs = zip((3, *widths), widths, strict=False)
        self.levels = nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.LeakyReLU(0.1)) for a, b in pairs)
        near = (2 * reach + 1) ** 2
        self.estimate = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(near + width + 2, 32, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(32, 2, 3, padding=1)
            )
            for width in reversed(widths)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        ones, twos = self._features(first), self._features(second)
        flow = torch.zeros_like(ones[-1][:, :2])
        for one, two, estimate in zip(reversed(ones), reversed(twos), self.estimate, strict=True):
            flow = 2 * F.interpolate(flow, size=one.shape[-2:], mode="bilinear", align_corners=False)
            cost = F.leaky_relu(self._cost(one, warp(two, flow)), 0.1)
            flow = flow + estimate(torch.cat([cost, one, flow], 1))
        return 2 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)

    def _features(self, frame: Tensor) -> list[Tensor]:
        found = []
        for level in self.levels:
            frame = level(frame)
            found.append(frame)
        return found

    def _cost(self, one: Tensor, two: Tensor) -> Tensor:
        height, width = one.shape[-2:]
        padded = F.pad(two, (self.reach,) * 4)
        moved = [
            (one * padded[..., y : y + height, x : x + width]).mean(1)
            for y in range(2 * self.reach + 1)
            for x in range(2 * self.reach + 1)
        ]
        return torch.stack(moved, 1)


def _torchvision_raft() -> Made:
    from torchvision.models.optical_flow import raft_small

    class Last(nn.Module):
        """Returns the last of the flows, which is the one that torchvision's reference uses."""

        def __init__(self) -> None:
            super().__init__()
            self.raft = raft_small(weights=None)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            flow: Tensor = self.raft(first, second, num_flow_updates=3)[-1]
            return flow

    return Last(), frames(128)


def _row(name: str, make: Callable[[], Made], more: tuple[str, ...] = (), package: str | None = None,
         sizes: str = ANY_SIZE, precision: str | None = None) -> Row:  # fmt: skip
    both = [f"{n}.{d}={r}" for n in ("first", "second") for d, r in ((0, "1:1:4"), (2, sizes), (3, sizes))]
    return Row(name, GROUP, make, package, (*both, *more), precision)


ROWS = [
    _row("rife", lambda: (IntermediateFlow(), (*frames(), torch.tensor([0.5]))), ("time.0=1:1:4",)),
    _row("rife-fp16", lambda: (IntermediateFlow(), (*frames(), torch.tensor([0.5]))), ("time.0=1:1:4",),
         precision="fp16"),
    _row("raft", lambda: (Raft(), frames())),
    _row("pwc-net", lambda: (CostVolume(), frames())),
    _row("raft-torchvision", _torchvision_raft, package="torchvision", sizes="128:128:192"),
]  # fmt: skip
