"""Runs a program in halves in fp32, in little more memory than its own.

Each tensor in halves is converted where an operator uses it, and the copy is released when the operator ends, so that
no more than one operator's weights are in fp32 at a time. Results stay in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

HALVES = (torch.float16, torch.bfloat16)
# Operators that select rows of a table. The result stays in halves, so that only the selected rows are converted later.
_SELECTING = (torch.ops.aten.embedding.default,)


class Widened(TorchFunctionMode):
    """A mode in which an exported program's operators convert arguments in halves to fp32.

    A write into a tensor in halves, such as state, is rounded. Operators in a nested graph (``torch.cond``) are not
    converted.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = tuple(args), dict(kwargs or {})
        if not isinstance(func, torch._ops.OpOverload) or _stays_in_halves(func, arguments):
            return func(*arguments[0], **arguments[1])
        copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def widened(tensor: torch.Tensor) -> torch.Tensor:
            return copies.setdefault(id(tensor), (tensor, tensor.float()))[1] if tensor.dtype in HALVES else tensor

        wide_args, wide_kwargs = pytree.tree_map_only(torch.Tensor, widened, _in_fp32(arguments))
        result = func(*wide_args, **wide_kwargs)
        for original, copy in copies.values():
            if copy._version:  # the operator wrote into it
                original.copy_(copy)
        if _converts(arguments) and any(
            result is argument for argument in pytree.tree_leaves((wide_args, wide_kwargs))
        ):
            return result.clone()  # the conversion to halves, which this replaces, would return new memory
        originals = {id(copy): original for original, copy in copies.values()}
        return pytree.tree_map_only(torch.Tensor, lambda tensor: originals.get(id(tensor), tensor), result)


def _stays_in_halves(func: torch._ops.OpOverload, arguments: Any) -> bool:
    """Returns whether a call selects rows, or is a view, through which a later write must reach the original memory."""
    return func in _SELECTING or (func.is_view and not _converts(arguments))


def _converts(arguments: Any) -> bool:
    return any(isinstance(leaf, torch.dtype) for leaf in pytree.tree_leaves(arguments))


def _in_fp32(arguments: Any) -> Any:
    return pytree.tree_map_only(torch.dtype, lambda dtype: torch.float32 if dtype in HALVES else dtype, arguments)
