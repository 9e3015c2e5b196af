"""Lower, partition, convert: an exported program becomes a graph that calls engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side import upstream
from linux_side.backends.base import EngineBuilder
from linux_side.exporter.engine_module import CompiledEngine, EngineModule
from linux_side.frontend.supported import torch_executed_names
from linux_side.fx.sizes import compute_sizes_wholly
from linux_side.fx.source_line import located
from linux_side.fx.state import STATE, state_to_inputs
from linux_side.fx.values import output_values
from linux_side.guards.profiles import Profiles
from linux_side.guards.tracing import small_sizes_of
from linux_side.lowering.aliasing import allow_aliasing_of_state_alone
from linux_side.lowering.cache_views import view_caches
from linux_side.lowering.complex_numbers import keep_complex_in_torch
from linux_side.lowering.culprit import (
    OperatorRefusedError,
    empty_operators,
    first_refused,
    operators_of,
    refused_dtype,
    remember_names,
)
from linux_side.lowering.data_sizes import keep_data_sizes_in_torch
from linux_side.lowering.engine_metadata import encode_metadata
from linux_side.lowering.fallback import AttemptFailedError
from linux_side.lowering.float64 import demote_float64
from linux_side.lowering.large_numbers import keep_large_numbers_outside
from linux_side.lowering.network_check import check_network
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
from linux_side.rewrites.pooling import keep_adaptive_pooling_outside
from linux_side.rewrites.resizing import keep_inexact_resizing_outside
from linux_side.rewrites.whole_numbers import bound_casts_to_whole_numbers
from toolchain.engine.info import EngineInfo, RuntimeDevice
from toolchain.errors import BuildFailedError, TrtcrossError
from toolchain.graph.writer import engine_from_file
from toolchain.manifest.models import Binding, ShapeRange
from toolchain.targets import AMPERE

PartitionHook = Callable[[str, torch.fx.GraphModule], None]
NetworkHook = Callable[[str, Any], None]


@dataclass(frozen=True)
class EngineFacts:
    """What the manifest says of an engine beyond its engine info."""

    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]]


@dataclass
class Compiled:
    """A compiled graph.

    Attributes:
        gm: the partitioned graph, an :class:`EngineModule` where each engine goes.
        facts: by the engine's name.
        fallback: how often each operator stays in PyTorch.
        in_engines: how many operators went into engines.
    """

    gm: torch.fx.GraphModule
    facts: dict[str, EngineFacts] = field(default_factory=dict)
    fallback: Counter[str] = field(default_factory=Counter)
    in_engines: int = 0


def lower_program(program: ExportedProgram, options: BuildOptions, builder: EngineBuilder) -> torch.fx.GraphModule:
    """Lowers a program: a graph of core operators, those that must stay in PyTorch marked.

    Raises:
        UsageError: an operator that shall stay in PyTorch is none of the model's.
    """
    settings = _settings(options, builder)
    with small_sizes_of(program.range_constraints):
        decomposed = upstream.decompose(program, settings, corrected)
        gm = state_to_inputs(decomposed)
        changes = gm.meta.get(STATE, [])
        fill_uninitialized(gm)
        make_draws_readable(gm)
        gm = upstream.lower(gm, settings)
        rewrite_attention(gm)
        rewrite_complex_products(gm)
        bound_casts_to_whole_numbers(gm)
        move_bytes_as_floats(gm)
        compute_sizes_wholly(gm)
        take_floats_as_tensors(gm)
    keep_complex_in_torch(gm)
    keep_data_sizes_in_torch(gm)
    view_caches(gm, allow_aliasing_of_state_alone(gm, changes))
    keep_large_numbers_outside(gm)
    keep_inexact_resizing_outside(gm)
    keep_adaptive_pooling_outside(gm)
    keep_requested_outside(gm, program, options.torch_executed_ops)
    gm.meta[STATE] = changes
    remember_names(gm)
    return gm


def partition_graph(gm: torch.fx.GraphModule, options: BuildOptions, builder: EngineBuilder) -> torch.fx.GraphModule:
    """Splits a lowered graph, which stays as it is, into what TensorRT takes and what stays in PyTorch.

    Raises:
        BuildFailedError: an operator stays in PyTorch although full coverage was asked for.
        AttemptFailedError: of a part's operators one belongs into PyTorch.
    """
    settings = _settings(options, builder)
    settings.torch_executed_ops |= drawing_operators(gm)
    partitioned = upstream.partition(gm, settings)
    if options.min_block_size is None and keep_small_engines_outside(gm, partitioned):
        partitioned = upstream.partition(gm, settings)
    partitioned.meta[STATE] = gm.meta[STATE]
    refusals = []
    for name, partition in list(_partitions(partitioned)):
        call = _call_of(partitioned, name)
        try:
            if keep_sizes_inside(partitioned, call, partition):
                demote_float64(partitioned, call, partition)
        except OperatorRefusedError as refusal:
            refusals.append(refusal)
    if refusals:
        raise AttemptFailedError(refusals)
    partitioned.recompile()
    if options.require_full_coverage and (left := _nodes_in_torch(partitioned)):
        places = "; ".join(sorted({located(node) for node in left}))
        raise BuildFailedError(
            f"{len(left)} operators would stay in PyTorch: {places}{_reasons(partitioned)}",
            where="--require-full-coverage",
            remedy="rewrite them in the model, or build without --require-full-coverage",
        )
    return partitioned


def convert_partitions(
    partitioned: torch.fx.GraphModule,
    options: BuildOptions,
    builder: EngineBuilder,
    profiles: Profiles,
    spool: Path,
    on_partition: PartitionHook | None = None,
    on_network: NetworkHook | None = None,
    deadline: Callable[[], float] = lambda: float("inf"),
) -> Compiled:
    """Builds an engine for each ``_run_on_acc_*`` submodule and puts an :class:`EngineModule` in its place.

    Each plan goes to a file in ``spool`` as soon as it is built, so that only one is in memory.

    Args:
        profiles: for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.
        on_partition: sees each partition just before it is converted.
        on_network: sees each partition's ``INetworkDefinition`` just before its engine is built.
        deadline: when the search for the operators that TensorRT refuses has to end; asked at the first of them.

    Raises:
        BuildFailedError: there is nothing for TensorRT to do, or a network differs from the model.
        AttemptFailedError: there are operators that TensorRT does not take. After the first no engine is built.
    """
    settings = _settings(options, builder)
    compiled = Compiled(partitioned, fallback=_operators_in_torch(partitioned))
    refusals: list[OperatorRefusedError] = []

    def network(part: torch.fx.GraphModule) -> tuple[list[Any], Any]:
        inputs = upstream.partition_inputs(part, profiles)
        interpreter = upstream.interpreter(part, inputs, settings)
        with _node_named(interpreter):
            upstream.construct_network(interpreter)
        return inputs, interpreter

    def build(part: torch.fx.GraphModule) -> None:
        builder.build(network(part)[1], options.target, options.capabilities)

    for name, partition in _partitions(partitioned):
        compiled.in_engines += len(_operators(partition))
        builder.prepare(partition)
        if on_partition:
            on_partition(name, partition)
        try:
            with _empty_blamed(partition):
                with _blamed(partition, build, deadline):
                    inputs, interpreter = network(partition)
                check_network(interpreter)
                if refusals:
                    continue
                if on_network:
                    on_network(name, upstream.network_of(interpreter))
                with _blamed(partition, build, deadline, interpreter):
                    plan = builder.build(interpreter, options.target, options.capabilities)
        except OperatorRefusedError as refusal:
            refusals.append(refusal)
            continue
        path = spool / f"{name}.plan"
        path.write_bytes(memoryview(plan))
        del plan
        info = _engine_info(name, partition, interpreter, options, builder)
        compiled.facts[info.name] = EngineFacts(*_bindings(interpreter), _profile_facts(info, inputs))
        _call_of(partitioned, name).meta["val"] = output_values(partition)
        partitioned.add_module(name, EngineModule(CompiledEngine(info, engine_from_file(path))))
        del interpreter
    if refusals:
        raise AttemptFailedError(refusals)
    if not compiled.facts and not options.allow_no_engine:
        raise BuildFailedError(
            f"TensorRT can take no operator of this model{_reasons(partitioned)}",
            where="partitioning",
            remedy="it needs no TensorRT to run: save it with torch.export.save, or make a plain program of it with "
            "--allow-no-engine",
        )
    return compiled


@contextmanager
def _node_named(interpreter: Any) -> Iterator[None]:
    """Makes of what a converter raises a refusal of its operator."""
    with upstream.builder_errors() as said:
        try:
            yield
        except (TrtcrossError, MemoryError):
            raise
        except Exception as error:
            node = upstream.node_at_fault(interpreter)
            if node is None:
                raise
            reason = f"its converter raised {type(error).__name__}: {_line(error)}"
            reason += f" ({upstream.words(said)})" if said else ""
            raise OperatorRefusedError([node], reason, by_itself=True) from error


@contextmanager
def _empty_blamed(partition: torch.fx.GraphModule) -> Iterator[None]:
    """Makes of any failure a refusal of what computes with tensors that have no elements, where there are such."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if empty := empty_operators(partition):
            reason = "TensorRT cannot take tensors with no elements"
            raise OperatorRefusedError(empty, reason, by_itself=True) from error
        raise


@contextmanager
def _blamed(
    partition: torch.fx.GraphModule,
    build: Callable[[torch.fx.GraphModule], None],
    deadline: Callable[[], float],
    interpreter: Any = None,
) -> Iterator[None]:
    """Makes of every other failure a refusal of the operator that is found to be its reason.

    Args:
        interpreter: of the partition, where the builder is at work.
    """
    try:
        yield
    except (OperatorRefusedError, MemoryError):
        raise
    except Exception as error:
        if empty_operators(partition):
            raise
        if len(named := upstream.named_nodes(interpreter, str(error)) if interpreter else []) != 1:
            named = [first_refused(partition, build, deadline())]
        if dtype := refused_dtype(named[0], build):
            raise BuildFailedError(
                f"TensorRT builds no engine in {str(dtype).removeprefix('torch.')} for these GPUs: {_line(error)}",
                where="--precision and --gpu",
                remedy="build in another precision (fp16, fp32), or for GPUs that have this one (bf16: from sm_80 on)",
            ) from error
        raise OperatorRefusedError(named, _line(error), by_itself=False) from error


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _settings(options: BuildOptions, builder: EngineBuilder) -> Any:
    return upstream.compilation_settings(
        min_block_size=options.min_block_size or 1,
        torch_executed_ops=torch_executed_names(options.torch_executed_ops),
        workspace_size=options.workspace,
        disable_tf32=not options.tf32,
        **builder.setting_overrides(options.target),
    )


def _partitions(gm: torch.fx.GraphModule) -> Iterator[tuple[str, torch.fx.GraphModule]]:
    for node in gm.graph.nodes:
        if node.op == "call_module" and node.target.startswith(upstream.ENGINE_PREFIX):
            yield node.target, gm.get_submodule(node.target)


def _engine_info(
    name: str, partition: torch.fx.GraphModule, interpreter: Any, options: BuildOptions, builder: EngineBuilder
) -> EngineInfo:
    inputs, outputs = upstream.binding_names(interpreter)
    gpu = min(options.capabilities, default=AMPERE)
    return EngineInfo(
        name=f"{name}_engine",
        device=RuntimeDevice(0, gpu, 0, f"NVIDIA {gpu}"),
        input_names=inputs,
        output_names=outputs,
        hardware_compatible=builder.hardware_compatible(options.capabilities),
        metadata=encode_metadata(partition),
        target_platform=options.target.runtime_name,
        requires_output_allocator=upstream.requires_output_allocator(interpreter),
        aliased_io=upstream.aliased_io(interpreter),
    )


def _bindings(interpreter: Any) -> tuple[list[Binding], list[Binding]]:
    network = upstream.network_of(interpreter)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return [_binding(tensor) for tensor in inputs], [_binding(tensor) for tensor in outputs]


_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "BOOL": "bool"}


def _binding(tensor: Any) -> Binding:
    dtype = tensor.dtype.name
    return Binding(name=tensor.name, dtype=_DTYPES.get(dtype, dtype.lower()), shape=list(tensor.shape))


def _profile_facts(info: EngineInfo, inputs: Sequence[Any]) -> list[dict[str, ShapeRange]]:
    dynamic = {n: i for n, i in zip(info.input_names, inputs, strict=True) if isinstance(i.shape, dict)}
    count = max((len(spec.profiles or [spec.shape]) for spec in dynamic.values()), default=0)
    facts = []
    for index in range(count):
        shapes = {name: (spec.profiles[index] if spec.profiles else spec.shape) for name, spec in dynamic.items()}
        facts.append({name: _shape_range(shape) for name, shape in shapes.items()})
    return facts


def _shape_range(shape: dict[str, Sequence[int]]) -> ShapeRange:
    low, opt, high = (list(map(int, shape[f"{kind}_shape"])) for kind in ("min", "opt", "max"))
    return ShapeRange(min=low, opt=opt, max=high)


def _reasons(gm: torch.fx.GraphModule) -> str:
    """Why we kept operators in PyTorch that TensorRT has, in words."""
    graphs = [module.graph for module in gm.modules() if isinstance(module, torch.fx.GraphModule)]
    kept = {str(node.target): why for graph in graphs for node in graph.nodes if (why := upstream.why_in_torch(node))}
    return f" ({'; '.join(f'{name}: {why}' for name, why in sorted(kept.items()))})" if kept else ""


def _call_of(gm: torch.fx.GraphModule, name: str) -> torch.fx.Node:
    return gm.graph.find_nodes(op="call_module", target=name)[0]


def _operators_in_torch(gm: torch.fx.GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in _nodes_in_torch(gm))


def _nodes_in_torch(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    graphs = [gm, *(gm.get_submodule(node.target) for node in gm.graph.nodes if _is_in_torch(node))]
    return [node for graph in graphs for node in _operators(graph)]


def _is_in_torch(call: torch.fx.Node) -> bool:
    return call.op == "call_module" and not call.target.startswith(upstream.ENGINE_PREFIX)


def _operators(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in operators_of(gm) if isinstance(node.target, torch._ops.OperatorBase)]
