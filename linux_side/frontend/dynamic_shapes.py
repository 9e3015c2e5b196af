"""Dynamic dimensions: from ``--dynamic`` to torch.export's shapes, and to TensorRT's optimization profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._sympy.value_ranges import ValueRanges

from linux_side.frontend.leaves import bounds, forward_names, input_names
from linux_side.options import DynamicDimension
from toolchain.errors import UsageError

Profiles = list[dict[str, dict[str, int]]]


def require_dynamic(dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Sequence[Any]) -> None:
    """Refuses dimensions that the example does not have.

    Raises:
        UsageError: there is no such input or dimension, or the example lies outside its range.
    """
    for item in dynamic:
        size = _leaf(item, names, leaves).shape[item.dim]
        if not item.lowest <= size <= item.highest:
            raise UsageError(
                f"the example's size {size} is outside {item.lowest} to {item.highest}",
                where=f"--dynamic {item.input}.{item.dim}",
                remedy="change the range or the factory's example",
            )


def shapes_for_export(
    dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Sequence[Any]
) -> ShapesCollection | None:
    """What ``torch.export.export`` takes as ``dynamic_shapes``."""
    if not dynamic:
        return None
    wanted: dict[str, dict[int, Any]] = {}
    for item in dynamic:
        wanted.setdefault(item.input, {})[item.dim] = Dim.DYNAMIC(min=item.lowest, max=item.highest)
    shapes = ShapesCollection()
    for name, sizes in wanted.items():
        shapes[leaves[list(names).index(name)]] = sizes
    return shapes


def enlarge_unit_dimensions(
    dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Sequence[Any]
) -> list[Any]:
    """The example with each dynamic dimension of size 1 repeated once, where its range allows two.

    Traced at size 1 many models (ViT, Swin) turn out to fit nothing else: broadcasting looks at it.
    """
    larger = list(leaves)
    for item in dynamic:
        index = list(names).index(item.input)
        if item.highest > 1 and larger[index].shape[item.dim] == 1:
            larger[index] = larger[index].repeat_interleave(2, dim=item.dim)
    return larger


def profiles_for(program: ExportedProgram, dynamic: Sequence[DynamicDimension]) -> Profiles:
    """For each optimization profile, each symbol's ``min``, ``opt`` and ``max``.

    Raises:
        UsageError: a range goes beyond the program's own, a dimension is fixed, or one has no upper bound.
    """
    symbols: dict[str, DynamicDimension] = {}
    names = input_names(program.call_spec.in_spec, forward_names(program))
    values = user_values(program)
    for item in dynamic:
        size = _leaf(item, names, values).shape[item.dim]
        symbol = _symbol(item, size, program)
        if symbols.setdefault(symbol, item).ranges != item.ranges:
            raise UsageError(
                f"{item.input}.{item.dim} and {symbols[symbol].input}.{symbols[symbol].dim} are always equal, but "
                "are given different ranges",
                where="--dynamic",
                remedy="give both the same ranges",
            )
    _check_bounded(values, names, symbols, program)
    counts = {len(item.ranges) for item in dynamic}
    if len(counts) > 1:
        raise UsageError(
            "the dynamic dimensions are given different numbers of profiles",
            where="--dynamic",
            remedy="give each dimension as many ranges as there are profiles",
        )
    count = counts.pop() if counts else 0
    return [{symbol: item.ranges[i].model_dump() for symbol, item in symbols.items()} for i in range(count)]


def narrowed_ranges(program: ExportedProgram, profiles: Profiles) -> dict[Any, Any]:
    """The program's range constraints, narrowed to what the profiles cover."""
    ranges = dict(program.range_constraints)
    for symbol in ranges:
        covered = [profile[str(symbol)] for profile in profiles if str(symbol) in profile]
        if covered:
            ranges[symbol] = ValueRanges(min(c["min"] for c in covered), max(c["max"] for c in covered))
    return ranges


def _leaf(item: DynamicDimension, names: Sequence[str], leaves: Sequence[Any]) -> torch.Tensor:
    where = f"--dynamic {item.input}.{item.dim}"
    if item.input not in names:
        raise UsageError(
            f"the model has no input {item.input!r}", where=where, remedy="its inputs are: " + ", ".join(names)
        )
    value = leaves[list(names).index(item.input)]
    if not isinstance(value, torch.Tensor) or item.dim >= value.dim():
        what = f"{value.dim()} dimensions" if isinstance(value, torch.Tensor) else "no dimensions: it is no tensor"
        raise UsageError(f"the input {item.input!r} has {what}", where=where, remedy="count dimensions from 0")
    return value


def _symbol(item: DynamicDimension, size: Any, program: ExportedProgram) -> str:
    where = f"--dynamic {item.input}.{item.dim}"
    if not isinstance(size, torch.SymInt):
        raise UsageError(
            f"the program fixes this dimension at {size}",
            where=where,
            remedy="export the program with this dimension dynamic, or leave it out",
        )
    low, high = bounds(size, program.range_constraints)
    if item.lowest < low or (high is not None and item.highest > high):
        raise UsageError(
            f"the program takes sizes from {low} to {high}, not {item.lowest} to {item.highest}",
            where=where,
            remedy=f"use a range inside {low} to {high}: --dynamic can only narrow what the exported program takes",
        )
    if not size.node.expr.is_Symbol:
        raise UsageError(
            f"this dimension is always {size.node.expr}",
            where=where,
            remedy="give ranges for the dimensions that it depends on",
        )
    return str(size.node.expr)


def _check_bounded(
    values: Sequence[Any], names: Sequence[str], symbols: Mapping[str, Any], program: ExportedProgram
) -> None:
    for name, value in zip(names, values, strict=True):
        for dim, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if not isinstance(size, torch.SymInt) or str(size.node.expr) in symbols:
                continue
            if bounds(size, program.range_constraints)[1] is None:
                raise UsageError(
                    "this dimension has no upper bound, and TensorRT needs one",
                    where=f"input {name}, dimension {dim}",
                    remedy=f"add --dynamic {name}.{dim}=MIN:OPT:MAX",
                )


def user_values(program: ExportedProgram) -> list[Any]:
    """What the program says of each leaf of a call: a fake tensor, a symbolic number, or None for a plain value."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    return [nodes[spec.arg.name].meta.get("val") if spec.arg.name in nodes else None for spec in specs]
