"""Layers that compute element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Compute, Layer, demand, only, reads, torch_dtype
from tests.integration.network.weights import copied

# Functions by ActivationType, with alpha and beta as in its documentation.
_ACTIVATIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "RELU": lambda x, alpha, beta: x.clamp(min=0),
    "SIGMOID": lambda x, alpha, beta: x.sigmoid(),
    "TANH": lambda x, alpha, beta: x.tanh(),
    "LEAKY_RELU": lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x),
    "ELU": lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x.expm1()),
    "SELU": lambda x, alpha, beta: beta * torch.where(x > 0, x, alpha * x.expm1()),
    "SOFTSIGN": lambda x, alpha, beta: x / (1 + x.abs()),
    # log(exp(b x) + 1), without the overflow
    "SOFTPLUS": lambda x, alpha, beta: alpha * torch.logaddexp(beta * x, torch.zeros(())),
    "CLIP": lambda x, alpha, beta: x.clamp(max=beta).clamp(min=alpha),
    "HARD_SIGMOID": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "SCALED_TANH": lambda x, alpha, beta: alpha * (beta * x).tanh(),
    "THRESHOLDED_RELU": lambda x, alpha, beta: torch.where(x > alpha, x, torch.zeros_like(x)),
    "GELU_ERF": lambda x, alpha, beta: 0.5 * x * (1 + (0.5**0.5 * x).erf()),
    "GELU_TANH": lambda x, alpha, beta: 0.5 * x * (1 + ((2 / torch.pi) ** 0.5 * (0.044715 * x**3 + x)).tanh()),
}


@reads("ACTIVATION", "IActivationLayer")
def activation(layer: Any, _: Layer) -> Compute:
    name, alpha, beta = layer.type.name, layer.alpha, layer.beta
    only(name in _ACTIVATIONS, f"activation {name}")
    return lambda x: _ACTIVATIONS[name](x, alpha, beta)


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "DIV": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    "POW": torch.pow,
    "FLOOR_DIV": lambda a, b: (a / b).floor() if a.is_floating_point() else torch.div(a, b, rounding_mode="floor"),
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}
_LOGICAL = ("AND", "OR", "XOR")


@reads("ELEMENTWISE", "IElementWiseLayer")
def elementwise(layer: Any, _: Layer) -> Compute:
    name = layer.op.name
    only(name in _BINARY, f"operation {name}")

    def compute(a: Tensor, b: Tensor) -> Tensor:
        _demand_broadcast(a, b)
        demand(a.dtype == b.dtype, f"operands of {a.dtype} and {b.dtype}")
        demand((a.dtype is torch.bool) <= (name in (*_LOGICAL, "EQUAL")), f"{name} of booleans")
        demand(name not in _LOGICAL or a.dtype is torch.bool, f"{name} of {a.dtype}")
        return _BINARY[name](a, b)

    return compute


def _demand_broadcast(*operands: Tensor) -> None:
    """Checks that ranks are equal, and that sizes along each dimension are equal or 1."""
    shapes = [tuple(operand.shape) for operand in operands]
    demand(len({len(shape) for shape in shapes}) == 1, f"operands of shapes {shapes}")
    for sizes in zip(*shapes, strict=True):
        demand(len({size for size in sizes if size != 1}) <= 1, f"operands of shapes {shapes}")


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
    "SIGN": torch.sign,
    "ROUND": torch.round,
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}
_UNARY_OF_INTEGERS = ("ABS", "NEG", "SIGN")


@reads("UNARY", "IUnaryLayer")
def unary(layer: Any, _: Layer) -> Compute:
    name = layer.op.name
    only(name in _UNARY, f"operation {name}")

    def compute(x: Tensor) -> Tensor:
        if name == "NOT":
            demand(x.dtype is torch.bool, f"NOT of {x.dtype}")
        else:
            integer = not x.is_floating_point() and x.dtype is not torch.bool
            demand(x.is_floating_point() or (integer and name in _UNARY_OF_INTEGERS), f"{name} of {x.dtype}")
        return _UNARY[name](x)

    return compute


@reads("SELECT", "ISelectLayer")
def select(_: Any, __: Layer) -> Compute:
    def compute(condition: Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
        demand(condition.dtype is torch.bool, f"a condition of {condition.dtype}")
        _demand_broadcast(condition, then, otherwise)
        demand(then.dtype == otherwise.dtype, f"choices of {then.dtype} and {otherwise.dtype}")
        return torch.where(condition, then, otherwise)

    return compute


@reads("CAST", "ICastLayer")
def cast(layer: Any, _: Layer) -> Compute:
    dtype = torch_dtype(layer.to_type)
    return lambda x: _converted(x, dtype)


@reads("IDENTITY", "IIdentityLayer")
def identity(_: Any, layer: Layer) -> Compute:
    (dtype,) = layer.dtypes
    return lambda x: _converted(x, dtype)


def _converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts a tensor: floats become integers by truncation, and booleans by comparison with zero.

    A number outside of the integers' range has no documented result, and is an error.
    """
    if x.is_floating_point() and not dtype.is_floating_point and dtype is not torch.bool:
        x = x.trunc()
        limits = torch.iinfo(dtype)
        inside = (x >= float(limits.min)) & (x < float(limits.max) + (limits.bits < 64))
        demand(bool(inside.all()), f"a number without a place in {dtype}")
    return x.to(dtype)


@reads("SCALE", "IScaleLayer")
def scale(layer: Any, recorded: Layer) -> Compute:
    """Computes ``(x * scale + shift) ** power``, each of which is optional."""
    mode, axis = layer.mode.name, layer.channel_axis
    factors, shifts, powers = (copied(weights) for weights in (layer.scale, layer.shift, layer.power))

    def shaped(weights: Tensor, x: Tensor) -> Tensor:
        weights = weights.float()
        if mode == "UNIFORM":
            return weights.reshape(())
        if mode == "CHANNEL":
            return weights.reshape(-1, *[1] * (x.ndim - axis - 1))
        return weights.reshape(x.shape[axis:])

    def compute(x: Tensor) -> Tensor:
        if factors is not None:
            x = x * shaped(factors, x)
        if shifts is not None:
            x = x + shaped(shifts, x)
        return x if powers is None else x ** shaped(powers, x)

    return compute


@reads("PARAMETRIC_RELU", "IParametricReLULayer")
def parametric_relu(_: Any, __: Layer) -> Compute:
    def compute(x: Tensor, slopes: Tensor) -> Tensor:
        _demand_broadcast(x, slopes)
        return torch.where(x < 0, x * slopes, x)

    return compute
