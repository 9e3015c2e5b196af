"""Converts ``--dynamic`` to the dynamic shapes of torch.export and the optimization profiles of TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from linux_side.frontend.leaves import bounds, forward_names, input_names
from linux_side.frontend.structure import plain_spec
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.profiles import Profiles
from linux_side.guards.sizes import InputSizes
from linux_side.options import DynamicDimension
from toolchain.errors import UsageError
from toolchain.guards.grammar import Size


def require_dynamic(dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Sequence[Any]) -> None:
    """Requires that the example has the dynamic dimensions, at sizes within their ranges.

    Args:
        dynamic: the dynamic dimensions.
        names: the name of each leaf of the example.
        leaves: the example's leaves.

    Raises:
        UsageError: there is no such input or dimension, or the example is outside its range.
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
    """Returns the ``dynamic_shapes`` for ``torch.export.export``; None without dynamic dimensions.

    Args:
        dynamic: the dynamic dimensions.
        names: the name of each leaf of the example.
        leaves: the example's leaves.
    """
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
    """Returns the example's leaves with each dynamic dimension of size 1 repeated to 2, if its range allows 2.

    Tracing at size 1 specializes many models (ViT, Swin) to 1 through broadcasting.
    """
    larger = list(leaves)
    for item in dynamic:
        index = list(names).index(item.input)
        if item.highest > 1 and larger[index].shape[item.dim] == 1:
            larger[index] = larger[index].repeat_interleave(2, dim=item.dim)
    return larger


def program_guards(program: ExportedProgram) -> ProgramGuards:
    """Collects the guards of a program. Call it before the program is lowered.

    Raises:
        BuildFailedError: an artifact cannot check a guard or a size.
    """
    names = input_names(plain_spec(program.call_spec.in_spec), forward_names(program))
    return ProgramGuards(program, names, user_values(program))


def profiles_for(program: ExportedProgram, dynamic: Sequence[DynamicDimension], sizes: InputSizes) -> Profiles:
    """Returns, for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.

    Args:
        program: the exported program.
        dynamic: the dynamic dimensions with their ranges.
        sizes: the program's input sizes as expressions of symbols.

    Raises:
        UsageError: a range exceeds the program's own, a dimension is fixed or has no upper bound, or the ranges of
            sizes that depend on each other contradict each other.
    """
    names = input_names(plain_spec(program.call_spec.in_spec), forward_names(program))
    values = user_values(program)
    given = {item.size: item for item in dynamic}
    for place, item in given.items():
        _require_inside(item, _leaf(item, names, values).shape[place.dim], program)
    _require_equal_counts(dynamic)
    count = len(dynamic[0].ranges) if dynamic else 0
    profiles: Profiles = [{} for _ in range(count)]
    # First the sizes that determine a symbol; the others must then agree with them.
    for place in sorted(given, key=lambda place: (not sizes.expressions[place].is_Symbol, place not in sizes.rules)):
        _enter(place, given, sizes, profiles)
    _check_bounded(values, names, profiles[0] if profiles else {}, program)
    return profiles


def _enter(place: Size, given: Mapping[Size, DynamicDimension], sizes: InputSizes, profiles: Profiles) -> None:
    """Enters the symbol that a size determines into each profile, or compares the size with the known symbols."""
    item, expression = given[place], sizes.expressions[place]
    for profile, wanted in zip(profiles, item.ranges, strict=True):
        for kind, size in wanted.model_dump().items():
            known = {symbol: of[kind] for symbol, of in profile.items() if kind in of}
            if all(str(symbol) in known for symbol in expression.free_symbols):
                _require_same(place, kind, size, sizes.made_of(place, known), given, sizes)
            elif (found := sizes.symbol_of(place, size)) is not None:
                profile.setdefault(found[0], {})[kind] = found[1]
            else:
                raise _no_symbol(place, kind, size, sizes)


def _require_same(
    place: Size, kind: str, size: int, made: int, given: Mapping[Size, DynamicDimension], sizes: InputSizes
) -> None:
    if size == made:
        return
    expression = sizes.expressions[place]
    others = [str(other) for other in given if other != place and sizes.shares_symbol(other, place)]
    what = (
        f"{place} and {others[0]} are always equal"
        if expression.is_Symbol
        else f"{place} is always {sizes.expressed(place)}"
    )
    raise UsageError(
        f"{what}, but their ranges differ: {kind.upper()} of {place} is {size}, which must be {made}",
        where=f"--dynamic {place}",
        remedy=f"give ranges that agree: {kind.upper()} of {place} is {made}",
    )


def _no_symbol(place: Size, kind: str, size: int, sizes: InputSizes) -> UsageError:
    if place not in sizes.rules:
        return UsageError(
            f"this dimension is always {sizes.expressions[place]}",
            where=f"--dynamic {place}",
            remedy="give ranges for the dimensions that it depends on",
        )
    factor, offset = sizes.steps[place]
    step = abs(factor)
    below = size - (size - offset) % step
    return UsageError(
        f"{kind.upper()} is a size that the program does not take: {place} is always {sizes.expressions[place]}, and "
        f"{size} is not",
        where=f"--dynamic {place}",
        remedy=f"the nearest that it takes: {place} = {below} or {place} = {below + step}",
    )


def _require_equal_counts(dynamic: Sequence[DynamicDimension]) -> None:
    if len({len(item.ranges) for item in dynamic}) > 1:
        raise UsageError(
            "the dynamic dimensions are given different numbers of profiles",
            where="--dynamic",
            remedy="give each dimension as many ranges as there are profiles",
        )


def narrowed_ranges(program: ExportedProgram, profiles: Profiles) -> dict[Any, Any]:
    """Returns the program's range constraints, narrowed to the sizes that the profiles cover."""
    ranges = dict(program.range_constraints)
    covered_symbols = set()
    for symbol in ranges:
        covered = [profile[str(symbol)] for profile in profiles if str(symbol) in profile]
        if covered:
            covered_symbols.add(symbol)
            ranges[symbol] = ValueRanges(min(c["min"] for c in covered), max(c["max"] for c in covered))
    symbols = {symbol: found for symbol, found in ranges.items() if symbol.is_Symbol}
    for expression in ranges:
        if not expression.is_Symbol and expression.free_symbols <= covered_symbols:
            ranges[expression] = bound_sympy(expression, symbols)
    return ranges


def _leaf(item: DynamicDimension, names: Sequence[str], leaves: Sequence[Any]) -> torch.Tensor:
    where = f"--dynamic {item.input}.{item.dim}"
    if item.input not in names:
        raise UsageError(
            f"the model has no input {item.input!r}", where=where, remedy="its inputs are: " + ", ".join(names)
        )
    value = leaves[list(names).index(item.input)]
    if not isinstance(value, torch.Tensor) or item.dim >= value.dim():
        what = f"{value.dim()} dimensions" if isinstance(value, torch.Tensor) else "no dimensions: it is not a tensor"
        raise UsageError(f"the input {item.input!r} has {what}", where=where, remedy="count dimensions from 0")
    return value


def _require_inside(item: DynamicDimension, size: Any, program: ExportedProgram) -> None:
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
    example = size.node.hint  # torch cannot load a program whose example is outside its range
    if example is not None and not item.lowest <= example <= item.highest:
        raise UsageError(
            f"the example's size {example} is outside {item.lowest} to {item.highest}",
            where=where,
            remedy="change the range, or export the program with an example inside it",
        )


def _check_bounded(
    values: Sequence[Any], names: Sequence[str], symbols: Mapping[str, Any], program: ExportedProgram
) -> None:
    for name, value in zip(names, values, strict=True):
        for dim, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if not isinstance(size, torch.SymInt) or {str(s) for s in size.node.expr.free_symbols} <= symbols.keys():
                continue
            if bounds(size, program.range_constraints)[1] is None:
                raise UsageError(
                    "this dimension has no upper bound, and TensorRT needs one",
                    where=f"input {name}, dimension {dim}",
                    remedy=f"add --dynamic {name}.{dim}=MIN:OPT:MAX",
                )


def user_values(program: ExportedProgram) -> list[Any]:
    """Returns the value of each leaf of a call: a fake tensor, a symbolic number, or None for a plain value."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    return [nodes[spec.arg.name].meta.get("val") if spec.arg.name in nodes else None for spec in specs]
