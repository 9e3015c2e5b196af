"""Which kernels TensorRT-RTX runs where sizes vary: its strategies of specialization, by TensorRT-RTX's own names.

``lazy`` runs kernels for any size, until those for a call's very sizes are compiled in the background. ``eager``
compiles those first, ``none`` never does.
"""

from __future__ import annotations

from typing import Literal

KernelChoice = Literal["lazy", "eager", "none"]

# The values of TensorRT-RTX's DynamicShapesKernelSpecializationStrategy, which Torch-TensorRT takes as numbers.
NUMBERS: dict[KernelChoice, int] = {"lazy": 0, "eager": 1, "none": 2}


# What each strategy runs, in words.
KINDS: dict[KernelChoice, str] = {
    "lazy": "kernels for any size, then for one",
    "eager": "kernels for one size",
    "none": "kernels for any size",
}


def strategy(kernels: KernelChoice, *, cuda_graphs: bool) -> KernelChoice:
    """Returns the strategy of engines.

    A captured graph would keep the kernels that run while those for its sizes are compiled in the background.
    """
    return "eager" if cuda_graphs and kernels == "lazy" else kernels
