"""Converts a factory's result to a plain module on the CPU and the arguments of one call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.errors import BuildFailedError, UsageError

_NAMED = 5
_ORIGINAL = "_orig_mod"  # the attribute in which torch.compile stores the module that it wraps

Call = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]


def read_result(result: Any, where: str) -> Call:
    """Returns the module and the example arguments of a factory's result.

    Args:
        result: ``(module, args)`` or ``(module, args, kwargs)``. ``args`` may be a tuple, a list, one value, or a dict
            of the arguments of ``forward`` by name.
        where: the factory's name, for errors.

    Returns:
        The module on the CPU, without wrappers of ``torch.compile`` around it or its parts, and its positional and
        keyword arguments on the CPU. Tensors on the meta device are filled with random values of a fixed seed.

    Raises:
        UsageError: the result has another form.
        BuildFailedError: the module contains TorchScript, or weights without values.
    """
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) not in (2, 3) or not isinstance(parts[0], torch.nn.Module):
        raise UsageError(
            "the factory must return (nn.Module, example_args) or (nn.Module, example_args, example_kwargs), and it "
            f"returned {_said(result)}",
            where=where,
            remedy="return the model in eval mode, and its example arguments as a tuple or as a dict",
        )
    module, example = uncompiled(parts[0]), parts[1]
    _refuse_scripted(module, where)
    _refuse_meta(module, where)
    kwargs = dict(parts[2]) if len(parts) == 3 else {}
    if isinstance(example, Mapping) and _are_arguments(module, {**example, **kwargs}):
        args, kwargs = (), {**example, **kwargs}
    else:
        args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    generator = torch.Generator().manual_seed(0)
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda tensor: _on_cpu(tensor, generator), (args, kwargs))
    return module.cpu(), args, kwargs


def uncompiled(module: torch.nn.Module) -> torch.nn.Module:
    """Removes the wrappers of ``torch.compile`` from a module and, in place, from its parts."""
    while inner := dict(module.named_children()).get(_ORIGINAL):
        module = inner
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _ORIGINAL in dict(child.named_children()):
                setattr(parent, name, uncompiled(child))
    return module


def _said(result: Any) -> str:
    if isinstance(result, tuple):
        return f"({', '.join(type(item).__name__ for item in result)})"
    return f"a {type(result).__name__}"


def _are_arguments(module: torch.nn.Module, arguments: Mapping[Any, Any]) -> bool:
    """Returns whether a dict has the arguments of ``forward`` by name, and is not itself one argument."""
    if not all(isinstance(name, str) for name in arguments):
        return False
    try:
        inspect.signature(module.forward).bind(**arguments)
    except TypeError:
        return False
    return True


def _refuse_scripted(module: torch.nn.Module, where: str) -> None:
    scripted = [name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        what = f"its part {scripted[0]!r} is" if scripted[0] else "it is"
        raise BuildFailedError(
            f"torch.export takes no TorchScript, and {what} a scripted or traced module",
            where=where,
            remedy="return the module as it was before torch.jit.script or torch.jit.trace",
        )


def _refuse_meta(module: torch.nn.Module, where: str) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    empty = [name for name, tensor in tensors if tensor.device.type == "meta"]
    if empty:
        more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        raise BuildFailedError(
            f"weights on the meta device have no values: {', '.join(empty[:_NAMED])}{more}",
            where=where,
            remedy="load them before the factory returns: model.load_state_dict(state, assign=True)",
        )


def _on_cpu(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Returns the tensor on the CPU, filled if it is on meta: normal floats, or 0 and 1, which index any table."""
    if tensor.device.type != "meta":
        return tensor.cpu()
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
    return torch.randint(2, tensor.shape, generator=generator).to(tensor.dtype)
