"""Factories for `trtcross build examples.models:NAME`: each returns a model and its example arguments."""

from __future__ import annotations

import torch


def resnet18():  # type: ignore[no-untyped-def]
    """ResNet-18 with random weights from a fixed seed."""
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet18().eval(), (torch.randn(1, 3, 224, 224),)
