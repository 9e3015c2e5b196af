"""``Tensor.data`` in forward, which torch.export does not trace.

A model that merges its branches into one weight at each call (SPAN) reads ``.data`` of some parameters and assigns it
to another one. A read is traced as ``detach``. An assignment takes effect for the rest of the call: later functions get
the assigned tensor instead. ``x.data += 1`` writes into the memory of ``x``, and then assigns what was read to ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from toolchain.errors import BuildFailedError

_READ = Tensor.data.__get__
_ASSIGN = Tensor.data.__set__


class DataAttributes(TorchFunctionMode):
    """Traces ``Tensor.data`` of a module's weights and of any other tensor within the block.

    Args:
        module: the one that is exported.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._module = module
        self._assigned: dict[int, tuple[Tensor, Tensor]] = {}  # by id; the tensors are kept so that no id is reused
        self._used: dict[int, Tensor] = {}
        self._read: dict[int, tuple[Tensor, Tensor]] = {}  # what was read, with the tensor that has the same memory

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function == _ASSIGN:
            return self._assign(*args)
        kwargs = kwargs or {}
        if self._assigned:
            args, kwargs = pytree.tree_map_only(Tensor, self._current, (args, kwargs))
        if function == _READ:
            result = args[0].detach()
            self._read[id(result)] = result, args[0]
        else:
            result = function(*args, **kwargs)
        by_torch = isinstance(function, torch._ops.OpOverload)  # it detaches every weight before it runs forward
        if not by_torch and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            self._used |= {id(arg): arg for arg in pytree.tree_leaves((args, kwargs)) if isinstance(arg, Tensor)}
        return result

    def _current(self, tensor: Tensor) -> Tensor:
        return self._assigned[id(tensor)][1] if id(tensor) in self._assigned else tensor

    def _assign(self, tensor: Tensor, value: Tensor) -> None:
        if id(value) in self._read and self._read[id(value)][1] is tensor:
            self._assigned.pop(id(tensor), None)
            return
        if id(tensor) in self._used and (name := self._name(tensor)):
            is_buffer = any(own is tensor for own in self._module.buffers())
            raise BuildFailedError(
                f"the model assigns to {name}.data in forward after it has used {name}: the next call would differ, "
                "and an artifact has no such state",
                where=name,
                remedy=("" if is_buffer else "make it a buffer (register_buffer) and ") + "write into it with copy_()",
            )
        self._assigned[id(tensor)] = tensor, self._current(value)

    def _name(self, tensor: Tensor) -> str | None:
        named = (*self._module.named_parameters(), *self._module.named_buffers())
        return next((name for name, own in named if own is tensor), None)
