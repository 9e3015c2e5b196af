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
from torch.utils.weak import WeakTensorKeyDictionary

HALVES = (torch.float16, torch.bfloat16)
# Operators that select rows of a table. The result stays in halves, so that only the selected rows are converted later.
_SELECTING = (torch.ops.aten.embedding.default,)
# Operators that convert to the dtype of their second argument.
_LIKE_ANOTHER = (torch.ops.aten.type_as.default, torch.ops.aten.to.other)


class Widened(TorchFunctionMode):
    """A mode in which an exported program's operators convert arguments in halves to fp32.

    A write into a tensor in halves, such as state, is rounded. Operators in a nested graph (``torch.cond``) are not
    converted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._results = WeakTensorKeyDictionary()  # results in fp32, which may be in halves in the program

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = tuple(args), dict(kwargs or {})
        result = self._run(func, arguments)
        given = _tensors(arguments)
        if not _is_view(func, arguments) or any(argument in self._results for argument in given):
            for tensor in _tensors(result):
                if tensor.dtype is torch.float32 and all(tensor is not argument for argument in given):
                    self._results[tensor] = None
        return result

    def _run(self, func: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        if not isinstance(func, torch._ops.OpOverload) or func in _SELECTING or _is_view(func, arguments):
            return func(*arguments[0], **arguments[1])
        copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def widened(tensor: torch.Tensor) -> torch.Tensor:
            return copies.setdefault(id(tensor), (tensor, tensor.float()))[1] if tensor.dtype in HALVES else tensor

        wide_args, wide_kwargs = pytree.tree_map_only(torch.Tensor, widened, _in_fp32(arguments))
        result = func(*wide_args, **wide_kwargs)
        for original, copy in copies.values():
            if copy._version:  # the operator wrote into it
                original.copy_(copy)
        originals = {id(copy): original for original, copy in copies.values()}
        target = _target(func, arguments)
        if target is not None and any(result is argument for argument in _tensors((wide_args, wide_kwargs))):
            return self._converted(result, originals.get(id(result), result), target)
        return pytree.tree_map_only(torch.Tensor, lambda tensor: originals.get(id(tensor), tensor), result)

    def _converted(
        self, result: torch.Tensor, source: torch.Tensor, target: torch.dtype | torch.Tensor
    ) -> torch.Tensor:
        """Returns the result of a conversion that is none in fp32: the source itself only if the program has that."""
        dtype = self._dtype(source)
        if dtype is not None and dtype == self._dtype(target):
            return source  # a write into the result reaches the source, which may be state
        return result if result is not source else result.clone()

    def _dtype(self, value: torch.dtype | torch.Tensor) -> torch.dtype | None:
        """Returns the dtype of a tensor in the program, or a dtype itself; None if it is not known."""
        if isinstance(value, torch.Tensor):
            return None if value in self._results else value.dtype
        return value


def _is_view(func: Any, arguments: Any) -> bool:
    """Returns whether a call is a view, through which a later write must reach the original memory."""
    return isinstance(func, torch._ops.OpOverload) and func.is_view and _target(func, arguments) is None


def _target(func: Any, arguments: Any) -> torch.dtype | torch.Tensor | None:
    """Returns the dtype that a call converts to, or the tensor that has it; None if it converts nothing."""
    if func in _LIKE_ANOTHER:
        other: torch.Tensor = arguments[0][1]
        return other
    return next((leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.dtype)), None)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _in_fp32(arguments: Any) -> Any:
    return pytree.tree_map_only(torch.dtype, lambda dtype: torch.float32 if dtype in HALVES else dtype, arguments)
