"""A model that computes in another precision inside, while its inputs and outputs stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


def compute_inside_in(dtype: torch.dtype, module: torch.nn.Module) -> None:
    """Casts the module in place, its fp32 inputs on the way in and its outputs on the way out.

    An input that the model changes is changed as before: what became of its cast copy is copied back.
    """
    module.to(dtype)
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    def cast_input(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype is not torch.float32:
            return tensor
        copies.append((tensor, tensor.to(dtype)))
        return copies[-1][1]

    def before(_module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        copies.clear()
        return pytree.tree_map_only(torch.Tensor, cast_input, (args, kwargs))

    def after(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        for tensor, copy in copies:
            if copy._version > 0:  # PyTorch counts in-place changes, while it exports too
                tensor.copy_(copy)
        copies.clear()
        return pytree.tree_map_only(torch.Tensor, lambda t: t.float() if t.dtype is dtype else t, result)

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)
