"""Models for which a rule of precision matters, each with its example."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from linux_side.precision.apply import functional_program


def exported(model: nn.Module, *args: Any) -> ExportedProgram:
    """Returns the functional fp32 program of a model in evaluation mode."""
    with torch.no_grad():
        return functional_program(torch.export.export(model.eval(), args))


class Attention(nn.Module):
    """Attention in single operators, with a mask of fp32's lowest number; one row masks everything."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        mask = (1.0 - keep[:, None, :].float()) * torch.finfo(torch.float32).min
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 4 + mask
        return scores.softmax(-1) @ self.value(x)


class Rotary(nn.Module):
    """Rotary positions: a table of angles from a buffer and integer positions."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, 8, 2).float() / 8))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        angle = position[:, None].float() * self.inv_freq
        return self.project(x) * torch.cat((angle.cos(), angle.sin()), -1)


class Warp(nn.Module):
    """Warps an image by a flow from a convolution; the flow is also the input of a second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = nn.Conv2d(3, 2, 3, padding=1)
        self.refine = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flow = self.flow(image)
        rows = torch.linspace(-1, 1, image.shape[2])
        columns = torch.linspace(-1, 1, image.shape[3])
        base = torch.stack((columns.expand(image.shape[2], -1), rows[:, None].expand(-1, image.shape[3])), -1)
        grid = base + flow.permute(0, 2, 3, 1) * 0.1
        return nn.functional.grid_sample(image, grid, align_corners=True) + self.refine(flow)


class Pixels(nn.Module):
    """Picks rows by indices that are computed as floats."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Linear(4, 4)

    def forward(self, table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        place = (self.place(x).sigmoid() * (table.shape[0] - 1)).round().long()
        return table[place]


class Norms(nn.Module):
    """An RMS norm in single operators, a layer norm, and a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU())
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x) * 300  # the squares exceed fp16's largest number
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Cache(nn.Module):
    """State that a product reads, and a sum of all inputs over many calls."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self.register_buffer("keys", torch.zeros(4, 8))
        self.register_buffer("total", torch.zeros(8))

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        projected = self.project(x)
        self.keys.index_copy_(0, place, projected)
        self.total.copy_(torch.cumsum(torch.stack((self.total, projected.sum(0))), 0)[-1])
        return x @ self.keys.t(), self.total.clone()


class SmallVariance(nn.Module):
    """Batch norm of a channel that hardly varies: fp16 can hold neither the variance nor epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-9)
        self.norm.running_var.copy_(torch.tensor([1e-8, 1.0, 4.0, 1e-3]))
        self.norm.running_mean.copy_(torch.tensor([1e-3, 1.0, -1.0, 0.0]))
        self.convolution.weight.data[0] *= 1e-4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x))


class Cancels(nn.Module):
    """A difference of nearly equal large numbers, which halves lose."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 3 + 2000) - (x * 3 + 1999.9)


class Parts(nn.Module):
    """Three parts, one of which is wrong in halves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fragile, self.last = nn.Linear(8, 8), Cancels(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) * self.fragile(x))


class Overflows(nn.Module):
    """An inner value beyond 65504, the largest number of fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.large(x * 3e4) * 10) / 1e5
