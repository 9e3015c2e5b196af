"""Controls how torch treats sizes while it traces a model, and again while the program is lowered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from linux_side.guards.fixing import SizesInFunctions
from linux_side.guards.layout import small_sizes_kept_in_ranges, unguarded_layouts
from linux_side.guards.ranges import lower_bounds_set
from linux_side.guards.whole import whole_sizes
from toolchain.guards.grammar import Size


def small_sizes(lowest: int) -> AbstractContextManager[Any]:
    """Allows sizes of 0 and 1 if the lowest size is one of them.

    By default, torch distinguishes these from all other sizes and adds a guard that excludes them. This also applies
    while a program is lowered, because lowering traces again.
    """
    patched: AbstractContextManager[Any] = symbolic_shapes.patch(backed_size_oblivious=lowest < 2)
    return patched


@contextmanager
def unspecialized_sizes(lowest: Mapping[Size, int]) -> Iterator[None]:
    """Makes torch trace a model so that as few of its sizes as possible are fixed or narrowed.

    Args:
        lowest: the lowest requested value of each varying size.
    """
    small = small_sizes(min(lowest.values(), default=2))
    with small, lower_bounds_set(lowest), whole_sizes(), small_sizes_kept_in_ranges(), SizesInFunctions():
        yield


@contextmanager
def small_sizes_of(constraints: Mapping[Any, Any]) -> Iterator[None]:
    """Does the same for an exported program that is traced again, given its range constraints."""
    of_inputs = [found for symbol, found in constraints.items() if symbol.is_Symbol and not is_of_data(symbol)]
    lowest = min((int(found.lower) for found in of_inputs), default=2)
    with small_sizes(lowest), unguarded_layouts(), whole_sizes():
        yield


def is_of_data(expression: Any) -> bool:
    """Returns whether a size depends on the data of a call."""
    return bool(free_unbacked_symbols(expression))


@contextmanager
def no_own_guards(program: ExportedProgram) -> Iterator[None]:
    """Prevents torch from running a program's guards within the block.

    If guards are traced as a part of the program, ``a or b`` becomes a guard on whichever was true for the example.
    """
    kept, program._guards_code = program._guards_code, []
    try:
        yield
    finally:
        program._guards_code = kept


def forget_ranges_of_expressions(program: ExportedProgram) -> None:
    """Removes the ranges of expressions (``2*s0``), but not those of symbols, from a program's shape environment.

    ``torch.export.load`` enters them like ranges of symbols, and ``run_decompositions`` then fails. The program's own
    ``range_constraints`` keep them.
    """
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            if isinstance(size, torch.SymInt):
                known = size.node.shape_env.var_to_range
                for expression in [found for found in known if not found.is_Symbol]:
                    del known[expression]
