"""Finds what a node of a graph calls: an operator that is registered with torch, or a Python function of a list."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from toolchain.checker.graph import is_plain_operator

# Functions of numbers and sizes; torch writes no others.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in (
        *("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "pow", "eq", "ne", "lt", "le"),
        *("gt", "ge", "and_", "or_", "not_", "lshift", "rshift"),
    )
} | {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")}
_SYMBOLIC = ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum")
_FUNCTIONS |= {f"torch.{name}": getattr(torch, name) for name in _SYMBOLIC if hasattr(torch, name)}
_FUNCTIONS |= {f"torch._{name}": getattr(torch, f"_{name}") for name in _SYMBOLIC if hasattr(torch, f"_{name}")}


class UnknownFormError(Exception):
    """A graph has a form that torch may write and our reader does not read; torch's own reader may."""


def operator_of(text: str) -> torch._ops.OpOverload | Callable[..., Any]:
    """Returns the operator that a graph names.

    Raises:
        UnknownFormError: the operator is not registered in this process, or is not of a kind that is read here.
    """
    if text in _FUNCTIONS:
        return _FUNCTIONS[text]
    if not text.startswith("torch.ops.") or text.startswith("torch.ops.higher_order.") or not is_plain_operator(text):
        raise UnknownFormError(f"a node calls {text[:80]!r}")
    namespace, name, overload = text.removeprefix("torch.ops.").split(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError) as error:
        raise UnknownFormError(f"a node calls {text[:80]!r}, which is not registered") from error
    if not isinstance(found, torch._ops.OpOverload):  # a packet has methods besides its overloads
        raise UnknownFormError(f"a node calls {text[:80]!r}")
    return found
