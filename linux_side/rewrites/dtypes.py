"""Casts operands to the dtype that PyTorch computes in, where upstream's converters do not.

Upstream divides integers as integers, and computes ``x**2.0`` of integers in integers. It truncates a fraction that is
added to or compared with integers, and passes integers to layers that only take floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

_aten = torch.ops.aten

_TO_FLOAT = (
    _aten.acos.default, _aten.acosh.default, _aten.asin.default, _aten.asinh.default, _aten.atan.default,
    _aten.atanh.default, _aten.cos.default, _aten.cosh.default, _aten.div.Scalar, _aten.div.Tensor, _aten.erf.default,
    _aten.exp.default, _aten.log.default, _aten.log10.default, _aten.log2.default, _aten.sigmoid.default,
    _aten.sin.default, _aten.sinh.default, _aten.sqrt.default, _aten.tan.default, _aten.tanh.default,
)  # fmt: skip
_COMMON = (
    _aten.div.Scalar_mode, _aten.div.Tensor_mode, _aten.floor_divide.default, _aten.floor_divide.Scalar,
    _aten.fmod.Scalar, _aten.fmod.Tensor, _aten.maximum.default, _aten.minimum.default, _aten.pow.Scalar,
    _aten.pow.Tensor_Scalar, _aten.pow.Tensor_Tensor, _aten.remainder.Scalar, _aten.remainder.Tensor,
    _aten.clamp.default, _aten.clamp.Tensor,
)  # fmt: skip
_BESIDE_FRACTIONS = tuple(
    getattr(getattr(_aten, name), overload)
    for name in ("add", "sub", "mul", "eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Scalar", "Tensor")
)
_WHOLE_ALREADY = (_aten.ceil.default, _aten.floor.default, _aten.round.default, _aten.trunc.default)


def _promoting(operator: Any, kind: Any) -> Callable[..., Any]:
    def promoted(*args: Any, **kwargs: Any) -> Any:
        dtype = common_dtype(args, kind)
        if all(arg.dtype is dtype for arg in args if isinstance(arg, Tensor)):
            return NotImplemented
        return operator(*(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args), **kwargs)

    return promoted


def _beside_fractions(operator: Any) -> Callable[..., Any]:
    """Casts integer operands only: for floats of two dtypes, upstream casts as PyTorch does."""

    def promoted(*args: Any, **kwargs: Any) -> Any:
        dtype = common_dtype(args, KIND.DEFAULT)
        whole = [isinstance(arg, Tensor) and not arg.is_floating_point() for arg in args]
        if not dtype.is_floating_point or not any(whole):
            return NotImplemented
        return operator(*(arg.to(dtype) if cast else arg for arg, cast in zip(args, whole, strict=True)), **kwargs)

    return promoted


def common_dtype(args: Sequence[Any], kind: Any) -> torch.dtype:
    """Returns the dtype that PyTorch computes an elementwise operator in.

    Args:
        args: the operator's arguments; those that are neither tensors nor numbers are ignored.
        kind: an ``ELEMENTWISE_TYPE_PROMOTION_KIND``.
    """
    operands = [arg for arg in args if isinstance(arg, (Tensor, int, float, bool)) or _is_symbolic(arg)]
    _, dtype = elementwise_dtypes(*operands, type_promotion_kind=kind)
    return dtype


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def where(condition: Tensor, x: Tensor, y: Tensor) -> Any:
    """``aten.where`` with both values cast to their common dtype."""
    dtype = torch.result_type(x, y)
    if x.dtype is dtype and y.dtype is dtype:
        return NotImplemented
    return torch.where(condition, x.to(dtype), y.to(dtype))


def _same_if_whole(x: Tensor) -> Any:
    return NotImplemented if x.is_floating_point() else x.clone()


def neg(x: Tensor) -> Any:
    """``aten.neg`` of integers as a product, because TensorRT's layer takes floats only."""
    return NotImplemented if x.is_floating_point() else x * -1


def isinf(x: Tensor) -> Any:
    """``aten.isinf`` of integers, which is False everywhere."""
    return NotImplemented if x.is_floating_point() else x != x


_SMALL = (torch.int32, torch.int8, torch.uint8)
_KEEPS_DTYPE = (
    _aten.amax.default, _aten.amin.default, _aten.max.default, _aten.max.dim, _aten.min.default, _aten.min.dim,
)  # fmt: skip
_WIDENS = (
    _aten.mean.default, _aten.mean.dim, _aten.prod.default, _aten.prod.dim_int,
    _aten.sum.default, _aten.sum.dim_IntList,
)  # fmt: skip


def _in_int64(operator: Any) -> Callable[..., Any]:
    """Reduces small integers as int64. Upstream reduces int32 as fp32, with a significand of 24 bits, or in int32."""

    def reduced(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        dtype = kwargs.get("dtype")
        if dtype is not None and x.dtype is not dtype:  # upstream ignores `dtype`
            return operator(x.to(dtype), *args, **kwargs)
        if x.dtype not in _SMALL and not (x.dtype is torch.bool and operator in _WIDENS):
            return NotImplemented
        result = operator(x.long(), *args, **kwargs)
        if operator in _WIDENS:
            return result
        return result.to(x.dtype) if isinstance(result, Tensor) else (result[0].to(x.dtype), *result[1:])

    return reduced


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **{operator: _in_int64(operator) for operator in (*_KEEPS_DTYPE, *_WIDENS)},
    **{operator: _promoting(operator, KIND.INT_TO_FLOAT) for operator in _TO_FLOAT},
    **{operator: _promoting(operator, KIND.DEFAULT) for operator in _COMMON},
    **{operator: _beside_fractions(operator) for operator in _BESIDE_FRACTIONS},
    **dict.fromkeys(_WHOLE_ALREADY, _same_if_whole),
    _aten.where.self: where,
    _aten.neg.default: neg,
    _aten.isinf.default: isinf,
}
