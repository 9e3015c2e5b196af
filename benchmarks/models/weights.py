"""Weights that depend on names alone, so that every version of PyTorch makes the same model."""

from __future__ import annotations

import zlib
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def settled(model: Model) -> Model:
    """Fills a model in place with numbers of the size that training gives, and puts it into eval mode.

    Matrices keep the variance of what they multiply. Scales of norms are around 1, and shifts are around 0.
    """
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(_parameter(name, parameter))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * drawn(name, buffer.shape))
        elif name.endswith("running_var"):
            buffer.copy_(1 + 0.3 * drawn(name, buffer.shape).tanh())
    return model.eval()


def _parameter(name: str, parameter: Tensor) -> Tensor:
    values = drawn(name, parameter.shape)
    if parameter.dim() > 1:
        return values * parameter[0].numel() ** -0.5
    return 1 + 0.1 * values if name.endswith(("norm.weight", "scale")) else 0.1 * values


def drawn(name: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Returns normally distributed numbers, which are the same for the same name and shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
