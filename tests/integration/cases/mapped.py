"""A model whose weights are mapped from a file, as those of a folder of safetensors are."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.integration.cases import Example

FILE = "MAPPED_WEIGHTS"  # the environment variable that names the file


def write(path: Path) -> None:
    """Writes the weights: 4 MiB for each of two layers."""
    save_file({f"{layer}.weight": torch.full((1024, 1024), 1e-3) for layer in "02"}, path)


def overwrite(path: Path) -> None:
    """Writes into the weights in place."""
    with path.open("r+b") as file:
        file.seek(-8, 2)
        file.write(bytes(4))


class Overwritten(torch.nn.Sequential):
    """Layers whose file is written to while they run, as another process might."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        overwrite(Path(os.environ[FILE]))
        y: torch.Tensor = super().forward(x)
        return y


def overwritten() -> Example:
    return perceptron(Overwritten)


def perceptron(kind: type[torch.nn.Sequential] = torch.nn.Sequential) -> Example:
    with torch.device("meta"):
        layers = [torch.nn.Linear(1024, 1024, bias=False) for _ in range(2)]
        model = kind(layers[0], torch.nn.ReLU(), layers[1])
    model.load_state_dict(load_file(os.environ[FILE]), assign=True)
    return model.eval(), (torch.ones(1, 1024),)
