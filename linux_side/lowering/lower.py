"""Lowers an exported program to a graph, and partitions the graph between TensorRT and PyTorch."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from linux_side import upstream
from linux_side.backends.base import EngineBuilder
from linux_side.fx.kept_values import values_kept
from linux_side.fx.sizes import compute_sizes_in_integers
from linux_side.fx.source_line import located
from linux_side.fx.state import STATE, state_to_inputs
from linux_side.guards.tracing import small_sizes_of
from linux_side.lowering.aliasing import allow_aliasing_of_state_alone
from linux_side.lowering.cache_views import view_caches
from linux_side.lowering.complex_numbers import keep_complex_in_torch
from linux_side.lowering.culprit import (
    OperatorRefusedError,
    remember_names,
)
from linux_side.lowering.data_sizes import keep_data_sizes_in_torch
from linux_side.lowering.distinct_calls import run_decompositions
from linux_side.lowering.fallback import AttemptFailedError
from linux_side.lowering.float64 import demote_float64
from linux_side.lowering.large_numbers import keep_large_numbers_outside
from linux_side.lowering.loops import keep_loops_outside
from linux_side.lowering.parts import (
    call_of,
    engine_parts,
    nodes_in_torch,
    reasons_in_torch,
    settings_of,
)
from linux_side.lowering.randomness import drawing_operators, fill_uninitialized, make_draws_readable
from linux_side.lowering.requested import keep_requested_outside
from linux_side.lowering.size_numbers import take_floats_as_tensors
from linux_side.lowering.small_engines import keep_small_engines_outside
from linux_side.lowering.symbolic_sizes import keep_sizes_inside
from linux_side.options import BuildOptions
from linux_side.rewrites.attention import rewrite_attention
from linux_side.rewrites.bytes import move_bytes_as_floats
from linux_side.rewrites.complex_products import rewrite_complex_products
from linux_side.rewrites.decompositions import corrected
from linux_side.rewrites.expanding import keep_expanded_dimensions
from linux_side.rewrites.pooling import keep_adaptive_pooling_outside
from linux_side.rewrites.resizing import keep_inexact_resizing_outside
from linux_side.rewrites.whole_numbers import bound_casts_to_whole_numbers
from toolchain.errors import BuildFailedError


def lower_program(program: ExportedProgram, options: BuildOptions, builder: EngineBuilder) -> torch.fx.GraphModule:
    """Lowers a program to a graph of core operators, in which those that must stay in PyTorch are marked.

    Raises:
        UsageError: the model does not call an operator that the options keep in PyTorch.
    """
    settings = settings_of(options, builder)
    with small_sizes_of(program.range_constraints):
        decomposed = upstream.decompose(program, settings, corrected, run_decompositions)
        gm = state_to_inputs(decomposed)
        changes = gm.meta.get(STATE, [])
        fill_uninitialized(gm)
        make_draws_readable(gm)
        with values_kept():
            gm = upstream.lower(gm, settings)
        rewrite_attention(gm)
        rewrite_complex_products(gm)
        bound_casts_to_whole_numbers(gm)
        move_bytes_as_floats(gm)
        compute_sizes_in_integers(gm)
        take_floats_as_tensors(gm)
        keep_expanded_dimensions(gm)
    keep_complex_in_torch(gm)
    keep_data_sizes_in_torch(gm)
    view_caches(gm, allow_aliasing_of_state_alone(gm, changes))
    keep_large_numbers_outside(gm)
    keep_inexact_resizing_outside(gm)
    keep_adaptive_pooling_outside(gm)
    keep_loops_outside(gm)
    keep_requested_outside(gm, program, options.torch_executed_ops)
    gm.meta[STATE] = changes
    remember_names(gm)
    return gm


def partition_graph(gm: torch.fx.GraphModule, options: BuildOptions, builder: EngineBuilder) -> torch.fx.GraphModule:
    """Splits a lowered graph into parts for TensorRT and operators that stay in PyTorch.

    The lowered graph keeps its operators; more of them may be marked to stay in PyTorch.

    Raises:
        BuildFailedError: an operator stays in PyTorch although full coverage is required.
        AttemptFailedError: an operator in a part for TensorRT must stay in PyTorch.
    """
    settings = settings_of(options, builder)
    settings.torch_executed_ops |= drawing_operators(gm)
    partitioned = upstream.partition(gm, settings)
    if options.min_block_size is None and keep_small_engines_outside(gm, partitioned):
        partitioned = upstream.partition(gm, settings)
    partitioned.meta[STATE] = gm.meta[STATE]
    refusals = []
    for name, partition in list(engine_parts(partitioned)):
        call = call_of(partitioned, name)
        try:
            if keep_sizes_inside(partitioned, call, partition):
                demote_float64(partitioned, call, partition)
        except OperatorRefusedError as refusal:
            refusals.append(refusal)
    if refusals:
        raise AttemptFailedError(refusals)
    partitioned.recompile()
    if options.require_full_coverage and (left := nodes_in_torch(partitioned)):
        places = "; ".join(sorted({located(node) for node in left}))
        raise BuildFailedError(
            f"{len(left)} operators would stay in PyTorch: {places}{reasons_in_torch(partitioned)}",
            where="--require-full-coverage",
            remedy="rewrite them in the model, or build without --require-full-coverage",
        )
    return partitioned
