"""Signatures of operator calls: everything about a call that decides what it is decomposed into."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument
from torch.fx import Node

Signature: TypeAlias = tuple[Any, ...]
# The most elements of a constant that may be a part of a signature: a number, as in ``mask[1:] = 1``.
_MAX_CONSTANT = 1


class PlainWayError(Exception):
    """Only torch's own ``run_decompositions`` can decompose this program."""


def require_simple(program: ExportedProgram) -> None:
    """Requires that each call of a program can be decomposed by itself.

    Raises:
        PlainWayError: the program changes state, calls something other than an operator, or has sizes that vary.
    """
    kinds = {spec.kind for spec in program.graph_signature.output_specs}
    inputs = (TensorArgument, ConstantArgument)
    if kinds != {OutputKind.USER_OUTPUT}:
        raise PlainWayError
    if not all(isinstance(spec.arg, inputs) for spec in program.graph_signature.input_specs):
        raise PlainWayError
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            raise PlainWayError
        if node.op == "call_function" and node.target is not operator.getitem:
            if not isinstance(node.target, torch._ops.OpOverload):
                raise PlainWayError
            if not all(isinstance(item, torch.Tensor) and _is_fixed(item) for item in tensors_of(node)):
                raise PlainWayError


def tensors_of(node: Node) -> Sequence[Any]:
    """Returns the tensors that a call returns; none if it only checks something."""
    value = node.meta.get("val")
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True)
class _Place:
    """The place of a tensor among the arguments of calls."""

    index: int


@dataclass(frozen=True)
class _Result:
    """The place of a tensor among the results of calls."""

    index: int


def arguments_of(calls: Sequence[Node]) -> list[Node]:
    """Returns the argument nodes of calls that are not calls of theirs."""
    own = set(calls)
    return [node for node in dict.fromkeys(n for call in calls for n in call.all_input_nodes) if node not in own]


def results_of(calls: Sequence[Node]) -> list[Node]:
    """Returns the calls whose results are used outside; of a single call, that call."""
    own = set(calls)
    return [call for call in calls if len(calls) == 1 or not own.issuperset(call.users)]


def traced(call: Node, calls: Sequence[Node]) -> Any:
    """Returns the operator to trace for one of several calls; a write by itself becomes its functional form."""
    return functional(call.target) if len(calls) == 1 else call.target


def signature_of(calls: Sequence[Node], values: Mapping[Node, Any]) -> Signature:
    """Returns the signature of one call, or of several that are decomposed together.

    Torch decomposes calls with equal signatures in the same way.

    Args:
        calls: the nodes of the calls, in their order.
        values: the value of each node.

    Raises:
        PlainWayError: an argument or an operator cannot be described.
    """
    inputs, given = arguments_of(calls), set(results_of(calls))
    places: dict[Node, Any] = {argument: _Place(index) for index, argument in enumerate(inputs)}
    places.update((call, _Result(index)) for index, call in enumerate(calls))
    parts = [
        (traced(call, calls), call in given, _hashable(torch.fx.map_arg((call.args, call.kwargs), places.__getitem__)))
        for call in calls
    ]
    return (*parts, *(described(values[argument]) for argument in inputs))


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(_hashable, value))
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    # 1, 1.0 and True compare equal, and so do 0.0 and -0.0: their types and texts differ.
    return (type(value), repr(value)) if isinstance(value, (int, float, complex)) else value


def functional(target: Any) -> Any:
    """Returns the operator that torch traces in place of one that writes in place; any other operator as it is.

    Raises:
        PlainWayError: there is no such operator, or torch decomposes one of the two before tracing.
    """
    schema = target._schema
    if not schema.is_mutable:
        return target
    name = target._opname.removesuffix("_")
    found = getattr(getattr(getattr(torch.ops, target.namespace), name, None), target._overloadname, None)
    if found is None or found._schema.is_mutable or is_composite(found) or is_composite(target):
        raise PlainWayError
    return found


def is_composite(target: Any) -> bool:
    """Returns whether torch decomposes an operator before it sees what is written."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd"))


def _is_fixed(value: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in value.shape)


def described(value: Any) -> Signature:
    """Describes everything about a tensor that torch knows while it traces an operator.

    Raises:
        PlainWayError: it is not a plain strided fake tensor of fixed size, or is a constant of several elements.
    """
    if type(value) is not torch._subclasses.FakeTensor or value.layout is not torch.strided or not _is_fixed(value):
        raise PlainWayError
    constant = value.constant
    if constant is not None and constant.numel() > _MAX_CONSTANT:
        raise PlainWayError
    return (
        None if constant is None else repr(constant.tolist()),
        value.dtype,
        tuple(value.shape),
        value.stride(),
        value.storage_offset(),
        value.device,
        value.requires_grad,
        value.is_conj(),
        value.is_neg(),
    )
