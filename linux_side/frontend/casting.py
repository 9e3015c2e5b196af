"""A model that computes in another precision inside, while its inputs and outputs stay as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.utils import _pytree as pytree


def cast_module(dtype: torch.dtype, module: torch.nn.Module, changed: Collection[str] | None = None) -> None:
    """Casts the module in place, its fp32 inputs on the way in and its outputs on the way out.

    An input that the original changes in place is changed still: where the cast copy has another value after the call,
    that is written into the input. So the change is of ``dtype``'s precision, and what is not changed stays as it is.

    Args:
        changed: the inputs that the original changes, as :func:`changed_inputs` names them. None where it was not run:
            then those whose copies change, which may be one that the model cast itself.
    """
    module.to(dtype)
    calls: list[list[tuple[str, torch.Tensor, torch.Tensor]]] = []  # a module may call itself

    def before(_module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        copies: list[tuple[str, torch.Tensor, torch.Tensor]] = []

        def cast(path: pytree.KeyPath, leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or leaf.dtype is not torch.float32:
                return leaf
            copies.append((pytree.keystr(path), leaf, leaf.to(dtype)))
            return copies[-1][2]

        calls.append(copies)
        return pytree.tree_map_with_path(cast, (args, kwargs))

    def after(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        for name, tensor, copy in calls.pop():
            if _is_changed(copy) and (changed is None or name in changed):
                tensor.copy_(torch.where(copy == tensor.to(dtype), tensor, copy.to(tensor.dtype)))
        return pytree.tree_map_only(torch.Tensor, lambda t: t.float() if t.dtype is dtype else t, result)

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)


def changed_inputs(args: Any, kwargs: Any) -> set[str]:
    """The names of the tensors among a call's arguments that were changed in place since they were made."""
    leaves = pytree.tree_leaves_with_path((args, kwargs))
    return {pytree.keystr(path) for path, leaf in leaves if isinstance(leaf, torch.Tensor) and _is_changed(leaf)}


def _is_changed(tensor: torch.Tensor) -> bool:
    """PyTorch counts in-place changes, while it exports too; not in inference mode."""
    return not tensor.is_inference() and tensor._version > 0
