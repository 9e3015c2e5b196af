"""Keeps numbers in PyTorch that an engine would change: whole numbers beyond int32, and floats beyond fp32.

Converters turn a whole number beside a tensor, and some int64 tensors, into int32. Doubles become fp32. So operators on
larger numbers stay in PyTorch, and with them the operators on their results, until a result is small or has another
type, such as that of a remainder or a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from linux_side.fx.graph_copy import get_attribute
from linux_side.upstream import keep_in_torch

_INT32, _FP32 = torch.iinfo(torch.int32), torch.finfo(torch.float32)
_WIDE = (torch.int64, torch.float64)


def keep_large_numbers_outside(gm: torch.fx.GraphModule) -> None:
    """Keeps in PyTorch the operators of a lowered graph that compute with large numbers.

    A whole number beside floats is written as a float, which an engine represents. The size of an input's values is
    known only at a call, so inputs do not count; what TensorRT computes with them in int64 is right.
    """
    large: set[torch.fx.Node] = set()
    for node in gm.graph.nodes:
        if node.op == "get_attr" and _is_large(get_attribute(gm, node.target)):
            large.add(node)
        elif node.op == "placeholder" or not isinstance(node.target, torch._ops.OpOverload):
            if node.op == "call_function" and not large.isdisjoint(node.all_input_nodes):
                large.add(node)  # such as getitem
        else:
            _write_as_float(node)
            number = next(filter(_is_large, _numbers(node)), None)
            if number is not None or not large.isdisjoint(node.all_input_nodes):
                keep_in_torch(
                    node, "it computes with numbers beyond int32" if number is None else f"it computes with {number}"
                )
                if _is_wide(node.meta.get("val")) and not _is_bounded(node):
                    large.add(node)


def _write_as_float(node: torch.fx.Node) -> None:
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if not tensors or not all(value.is_floating_point() for value in tensors):
        return
    for index, argument in enumerate(node.target._schema.arguments[: len(node.args)]):
        value = node.args[index]
        if _takes_a_number(argument) and type(value) is int and _is_large(value):
            node.update_arg(index, float(value))


def _numbers(node: torch.fx.Node) -> Iterator[Any]:
    """Yields the numbers that an operator computes with, which excludes dimensions, sizes and indices."""
    arguments = node.target._schema.arguments
    given = [
        *zip(arguments, node.args, strict=False),
        *((a, node.kwargs[a.name]) for a in arguments if a.name in node.kwargs),
    ]
    doubles = any(_dtype(value) is torch.float64 for value in (node, *node.all_input_nodes))
    for argument, value in given:
        if _takes_a_number(argument) and (type(value) is int or (type(value) is float and doubles)):
            yield value


def _takes_a_number(argument: Any) -> bool:
    kind = argument.type.getElementType() if isinstance(argument.type, torch.OptionalType) else argument.type
    return isinstance(kind, (torch.NumberType, torch.TensorType))


def _is_large(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dtype in _WIDE and value.numel() > 0 and _is_large_tensor(value)
    if isinstance(value, int):
        return not _INT32.min <= value <= _INT32.max
    return math.isfinite(value) and abs(value) > _FP32.max


def _is_large_tensor(value: torch.Tensor) -> bool:
    finite = value[value.isfinite()] if value.dtype is torch.float64 else value
    return finite.numel() > 0 and any(_is_large(bound.item()) for bound in finite.detach().aminmax())


def _is_wide(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(item, torch.Tensor) and item.dtype in _WIDE for item in values)


def _is_bounded(node: torch.fx.Node) -> bool:
    """Returns whether a result is within int32 for any input: a remainder, or a value clamped on both sides."""
    bounds = {torch.ops.aten.remainder.Scalar: (1,), torch.ops.aten.clamp.default: (1, 2)}.get(node.target, ())
    given = [node.args[index] if index < len(node.args) else None for index in bounds]
    return bool(given) and all(isinstance(bound, (int, float)) and not _is_large(bound) for bound in given)


def _dtype(node: torch.fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None
