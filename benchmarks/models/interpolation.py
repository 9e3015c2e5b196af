"""Frame interpolation: the flow between two frames is estimated from coarse to fine; both are warped and blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


def sample_along(image: Tensor, offset: Tensor) -> Tensor:
    """Samples ``image`` at each pixel's place plus ``offset`` (B, 2, H, W) in pixels; outside it has its border."""
    height, width = image.shape[-2:]
    rows = torch.arange(height, dtype=image.dtype, device=image.device)
    columns = torch.arange(width, dtype=image.dtype, device=image.device)
    x = (columns[None, None, :] + offset[:, 0]) * (2 / (width - 1)) - 1
    y = (rows[None, :, None] + offset[:, 1]) * (2 / (height - 1)) - 1
    return F.grid_sample(image, torch.stack((x, y), dim=-1), padding_mode="border", align_corners=True)


class Stage(nn.Module):
    """Estimates four numbers of flow and one of blending for each pixel, at a fraction of the size.

    Args:
        channels: the channels of the input.
        fraction: the divisor of the size: 1, 2 or 4.
        mode: the mode of resizing.
    """

    def __init__(self, channels: int, fraction: int, mode: str = "bilinear") -> None:
        super().__init__()
        self.fraction, self.mode = fraction, mode
        self.estimate = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 20, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        small = F.interpolate(x, scale_factor=1 / self.fraction, mode=self.mode) if self.fraction > 1 else x
        out = self.estimate(small)
        out = F.interpolate(out, scale_factor=float(self.fraction), mode=self.mode) if self.fraction > 1 else out
        return out[:, :4] * self.fraction, out[:, 4:]


class Between(nn.Module):
    """Computes the frame between two frames (B, 3, H, W).

    Args:
        fractions: the divisor of the size for each stage.
        mode: the mode of resizing.
    """

    def __init__(self, fractions: Sequence[int], mode: str = "bilinear") -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(6 if i == 0 else 17, f, mode) for i, f in enumerate(fractions))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        flow: Tensor | None = None
        blend: Tensor | None = None
        left, right = first, second
        for stage in self.stages:
            known = (first, second) if flow is None or blend is None else (first, second, left, right, flow, blend)
            more_flow, more_blend = stage(torch.cat(known, dim=1))
            flow = more_flow if flow is None else flow + more_flow
            blend = more_blend if blend is None else blend + more_blend
            left, right = sample_along(first, flow[:, :2]), sample_along(second, flow[:, 2:])
        share = torch.sigmoid(blend)
        return left * share + right * (1 - share)
