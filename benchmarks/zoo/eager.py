"""Runs a row's model in eager PyTorch on this machine's GPU (or CPU), in the row's precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.zoo.building import HALVES, called, errors_of, made
from benchmarks.zoo.row import Row


class Eager:
    """A row's model in eager PyTorch.

    Attributes:
        module: the model, made on the CPU from a fixed seed and moved to the GPU.
        call: its example on the GPU, in the row's precision.
    """

    def __init__(self, row: Row) -> None:
        use_whole_gpu()
        model, args, kwargs = made(row)
        self.dtype = HALVES.get(row.precision or "")
        self.module = model.to(_device(), self.dtype)
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = self.placed((args, kwargs))

    def placed(self, values: Any) -> Any:
        """Returns the values on the GPU, with floats in the row's precision."""

        def place(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return leaf.to(_device(), self.dtype if self.dtype and leaf.is_floating_point() else leaf.dtype, copy=True)

        return pytree.tree_map(place, values)

    def error(self, inputs: Sequence[Any], wanted: Sequence[Any]) -> float:
        """Returns the relative L2 error of the worst output."""
        return error_of(self.module, called(self.call, self.placed(list(inputs))), wanted)


def error_of(model: Any, call: Any, wanted: Sequence[Any]) -> float:
    """Calls a model; returns the relative L2 error of its worst output, cast to the dtypes that are wanted."""
    args, kwargs = call
    with torch.no_grad(), torch.device(_device()):  # the device of tensors that the model makes itself
        got = pytree.tree_leaves(model(*args, **kwargs))
    pairs = [(a.detach().cpu().to(b.dtype), b) for a, b in zip(got, wanted, strict=True) if isinstance(b, torch.Tensor)]
    return max(errors_of([got for got, _ in pairs], [want for _, want in pairs]), default=0.0)


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def use_whole_gpu() -> None:
    """Lets fp32 products use TF32, as engines do, and disables cuDNN where it is too old for this torch."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        torch.backends.cudnn.version()
    except RuntimeError:
        torch.backends.cudnn.enabled = False
