"""Factories for builds in tests: small models, and those that must be refused."""

from __future__ import annotations

from typing import Any

import torch


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


def tiny() -> Any:
    torch.manual_seed(0)
    return Tiny().eval(), (torch.randn(2, 8),)


def raises() -> Any:
    raise RuntimeError("the weights are gone")


def returns_nonsense() -> Any:
    return "a model"


class Failing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("this model never worked")


def failing() -> Any:
    return Failing().eval(), (torch.randn(2),)


class Unsupported(torch.nn.Module):
    """A model whose only operator has no converter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nextafter(x, x + 1).relu()


def unsupported() -> Any:
    return Unsupported().eval(), (torch.randn(2, 8),)


class Custom(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.trtcross_test.double(x)


def custom() -> Any:
    """Makes a model with an operator that only this process has registered."""
    if not hasattr(torch.ops.trtcross_test, "double"):

        @torch.library.custom_op("trtcross_test::double", mutates_args=())
        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @double.register_fake
        def _(x: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(x)

    return Custom().eval(), (torch.randn(2, 8),)


class Quantized(torch.nn.Module):
    """Rounds its input as post-training quantization does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127).relu()


def quantized() -> Any:
    return Quantized().eval(), (torch.randn(2, 8),)


def training_batch_norm() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)).train(), (torch.randn(4, 8),)


class Fragile(torch.nn.Module):
    """A model that subtracts nearly equal large numbers, which is wrong in halves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 3 + 2000) - (x * 3 + 1999.9)


class PartlyFragile(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.fragile, self.last = torch.nn.Linear(8, 8), Fragile(), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) * self.fragile(x))


def partly_fragile() -> Any:
    torch.manual_seed(0)
    return PartlyFragile().eval(), (torch.randn(4, 8),)
