"""Replaces functions of torch that would fix a size at the example's value, because they take it as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.overrides import TorchFunctionMode


class SizesInFunctions(TorchFunctionMode):
    """Computes ``torch.linspace`` and ``max_pool1d`` with functions that accept symbolic sizes."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        instead = _INSTEAD.get(function)
        result = instead(*args, **(kwargs or {})) if instead else NotImplemented
        return function(*args, **(kwargs or {})) if result is NotImplemented else result


def _linspace(
    start: Any, end: Any, steps: Any = None, *, dtype: torch.dtype | None = None, device: Any = None, **_options: Any
) -> Any:
    """Computes ``torch.linspace`` from ``torch.arange``, from both ends as the operator does."""
    dtype = dtype or torch.get_default_dtype()
    is_of_tensors = isinstance(start, Tensor) or isinstance(end, Tensor)
    if not isinstance(steps, torch.SymInt) or is_of_tensors or not dtype.is_floating_point:
        return NotImplemented
    index = torch.arange(steps, device=device)
    step = (end - start) / torch.sym_max(steps - 1, 1)
    from_start, from_end = index * step + start, (index - (steps - 1)) * step + end
    return torch.where(index < torch.sym_max(steps // 2, 1), from_start, from_end).to(dtype)


def _max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Computes ``max_pool1d`` as two-dimensional pooling of one row."""
    if not isinstance(input.shape[-1], torch.SymInt) or return_indices:
        return NotImplemented
    kernel, step, around, apart = (
        value[0] if isinstance(value, (tuple, list)) else value
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    row = torch.max_pool2d(input.unsqueeze(-2), (1, kernel), (1, step), (0, around), (1, apart), ceil_mode)
    return row.squeeze(-2)


_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.linspace: _linspace,
    torch.max_pool1d: _max_pool1d,
    F.max_pool1d: _max_pool1d,
}
