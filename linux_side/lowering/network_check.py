"""Compares a TensorRT network with the partition that it was converted from.

A converter may give a tensor a different shape or dtype than PyTorch. For example, ``aten.copy`` without broadcasting
gave 1x8 where the program has 4x8. Such an engine fails at every call, or silently computes something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from linux_side import upstream
from linux_side.fx.source_line import located
from linux_side.fx.values import output_values
from linux_side.guards.fixed import fixed_value
from linux_side.guards.tracing import is_of_data
from toolchain.errors import BuildFailedError

_DTYPES = {
    torch.float32: "FLOAT", torch.float16: "HALF", torch.bfloat16: "BF16", torch.bool: "BOOL", torch.int8: "INT8",
    torch.uint8: "UINT8", torch.int32: "INT32", torch.int64: "INT64",
}  # fmt: skip


def check_network(interpreter: Any) -> None:
    """Compares the dtypes and shapes of the network's tensors with those of the nodes that they were converted from.

    Every operator is compared, not only the outputs, because a later reduction can hide a wrong shape. A size must be
    dynamic in the network where it varies in the program, and only there.

    Args:
        interpreter: an interpreter from :func:`linux_side.upstream.interpreter` with a constructed network.

    Raises:
        BuildFailedError: a tensor differs. The message names the first such operator.
    """
    for node, tensors in upstream.converted_nodes(interpreter):
        for value, tensor in zip(_values(node), tensors, strict=False):
            if not isinstance(value, torch.Tensor) or tensor is None:
                continue
            in_network = tensor.dtype.name, tuple(tensor.shape)
            if in_network[0] == _DTYPES.get(value.dtype) and _is_shape_of(in_network[1], value):
                continue
            raise BuildFailedError(
                f"{_name(node)} would be wrong in TensorRT: it gives {_text(*in_network)} where the model has "
                f"{_text(_DTYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))}",
                where=located(node),
                remedy=f"keep it in PyTorch with --torch-executed-op {_name(node)}, and report it to trtcross",
            )


def _values(node: torch.fx.Node) -> Sequence[Any]:
    if node.op == "output":
        return output_values(node.graph.owning_module)
    value = node.meta.get("val")
    return value if isinstance(value, (list, tuple)) else (value,)


def _is_shape_of(shape: tuple[int, ...], value: torch.Tensor) -> bool:
    return len(shape) == len(value.shape) and all(map(_is_size_of, shape, value.shape))


def _is_size_of(size: int, wanted: int | torch.SymInt) -> bool:
    """Returns whether a size of the network fits the program's; TensorRT may detect that an expression is constant."""
    if isinstance(wanted, int):
        return size == wanted
    return size == -1 or size in (fixed_value(wanted), _constant_value(wanted))


def _constant_value(size: torch.SymInt) -> int | None:
    """Returns the value of an expression that is equal at multiples of the example's sizes, as ``s // (s // 4)`` is."""
    expression, environment = size.node.expr, size.node.shape_env
    if any(is_of_data(symbol) for symbol in expression.free_symbols):
        return None
    example = {symbol: int(environment.guarding_hint_or_throw(symbol)) for symbol in expression.free_symbols}
    found = {int(expression.subs({symbol: times * of for symbol, of in example.items()})) for times in (1, 2, 3)}
    return found.pop() if len(found) == 1 else None


def _name(node: torch.fx.Node) -> str:
    return str(node.target if node.op == "call_function" else node.name)


def _text(dtype: str, shape: tuple[Any, ...]) -> str:
    return f"{dtype} {'x'.join(map(str, shape)) or 'scalar'}"
