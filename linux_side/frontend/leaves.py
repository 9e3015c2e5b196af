"""Names the leaves of a call (``x``, ``images.0``, ``state.key``), and describes them for the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.utils import _pytree as pytree

from toolchain.manifest.models import DynamicSize, ValueSpec
from toolchain.targets import DEVICE


def input_names(in_spec: pytree.TreeSpec, argument_names: Sequence[str]) -> list[str]:
    """Returns a name for each leaf of ``(args, kwargs)``, derived from the argument names of ``forward``."""
    tree = pytree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    names = []
    for path, _ in pytree.tree_flatten_with_path(tree)[0]:
        kind, argument, *inner = path
        first = argument_names[argument.idx] if kind.idx == 0 else argument.key
        names.append(".".join([str(first), *map(_key, inner)]))
    return names


def output_names(out_spec: pytree.TreeSpec) -> list[str]:
    """Returns a name for each leaf of the result: ``output``, followed by its path if there is one."""
    tree = pytree.tree_unflatten(list(range(out_spec.num_leaves)), out_spec)
    return [".".join(["output", *map(_key, path)]) for path, _ in pytree.tree_flatten_with_path(tree)[0]]


def _key(key: Any) -> str:
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def forward_names(program: ExportedProgram) -> list[str]:
    """Returns the argument names of ``forward``, or ``arg0``, ``arg1``, ... if the program does not record them."""
    signature = program.module_call_graph[0].signature
    names = list(signature.forward_arg_names or []) if signature else []
    count = program.call_spec.in_spec.child(0).num_children
    return names if len(names) >= count else [f"arg{index}" for index in range(count)]


def describe_inputs(program: ExportedProgram, ranges: Mapping[Any, Any]) -> list[ValueSpec]:
    """Returns the manifest's description of the user's inputs.

    Args:
        program: the exported program.
        ranges: the range of each symbol.
    """
    names = input_names(program.call_spec.in_spec, forward_names(program))
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    return [_describe(name, arg, nodes, ranges) for name, arg in zip(names, specs, strict=True)]


def describe_outputs(program: ExportedProgram, ranges: Mapping[Any, Any]) -> list[ValueSpec]:
    """Returns the manifest's description of the user's outputs.

    Args:
        program: the exported program.
        ranges: the range of each symbol.
    """
    names = output_names(program.call_spec.out_spec)
    nodes = {node.name: node for node in program.graph.nodes}
    specs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    return [_describe(name, arg, nodes, ranges) for name, arg in zip(names, specs, strict=True)]


def _describe(name: str, argument: Any, nodes: Mapping[str, Any], ranges: Mapping[Any, Any]) -> ValueSpec:
    value = argument.value if isinstance(argument, ConstantArgument) else nodes[argument.name].meta["val"]
    if not isinstance(value, torch.Tensor):
        constant = value if isinstance(value, (int, float, bool, str, type(None))) else str(value)
        return ValueSpec(name=name, dtype=None, device=None, shape=None, value=constant)
    shape = [_size(size, ranges) for size in value.shape]
    return ValueSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), device=DEVICE, shape=shape)


def _size(size: Any, ranges: Mapping[Any, Any]) -> int | DynamicSize:
    if not isinstance(size, torch.SymInt):
        return int(size)
    low, high = bounds(size, ranges)
    # Interval arithmetic is loose: it gives a last chunk (n - 2*((n + 2)//3)) a negative least size.
    return DynamicSize(symbol=str(size.node.expr), min=max(low, 0), max=high)


def bounds(size: torch.SymInt, ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    """Returns the least and the greatest value of a symbolic size; None for the greatest if it has no bound."""
    return symbol_bounds(size.node.expr, ranges)


def symbol_bounds(expression: Any, ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    """Returns the least and the greatest value of an expression of symbols; None for the greatest if unbounded."""
    from torch.utils._sympy.value_ranges import bound_sympy

    found = ranges.get(expression) or bound_sympy(expression, dict(ranges))
    high = found.upper
    return int(found.lower), int(high) if high.is_number and high.is_finite and high < 2**62 else None
