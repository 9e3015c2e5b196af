"""Generates the code of graph modules on first use instead of after every change."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx.graph import _PyTreeCodeGen

_MADE = ("_code", "_lineno_map", "_prologue_start")


@contextlib.contextmanager
def recompiled_on_use() -> Iterator[None]:
    """Defers ``GraphModule.recompile`` until the module is called, or its code or its signature is read.

    Torch's and Torch-TensorRT's passes recompile after each change: 28 times while a program is lowered, which took a
    quarter of the time. Modules that are still waiting at the end of the block are recompiled once.
    """
    recompile = torch.fx.GraphModule.recompile
    waiting: weakref.WeakSet[torch.fx.GraphModule] = weakref.WeakSet()

    class Later:
        """A descriptor in a module's class that recompiles the module when the attribute is read."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __get__(self, module: torch.fx.GraphModule | None, _: type) -> Any:
            if module is None:
                return self
            make(module)
            return getattr(module, self._name)

    def make(module: torch.fx.GraphModule) -> None:
        waiting.discard(module)
        kind = type(module)
        for name in _MADE:
            if isinstance(vars(kind).get(name), Later):
                delattr(kind, name)
        recompile(module)

    def later(module: torch.fx.GraphModule) -> None:
        kind = type(module)
        if isinstance(module.graph._codegen, _PyTreeCodeGen):
            module._in_spec, module._out_spec = module.graph._codegen.pytree_info[1:3]
        if "_wrapped_call" not in vars(kind):  # the first recompile also installs the class's `__call__`
            graph, module._graph = module.graph, torch.fx.Graph()
            recompile(module)
            module._graph = graph
        for name in _MADE:
            vars(module).pop(name, None)
            setattr(kind, name, Later(name))
        kind.forward = Later("forward")
        waiting.add(module)

    torch.fx.GraphModule.recompile = later
    try:
        yield
    finally:
        torch.fx.GraphModule.recompile = recompile
        for module in list(waiting):
            make(module)
