"""Converts each partition to a TensorRT network, and builds an engine from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from linux_side import upstream
from linux_side.backends.base import EngineBuilder
from linux_side.backends.monitor import OnStep
from linux_side.exporter.engine_module import CompiledEngine, EngineModule
from linux_side.fx.spill import joined
from linux_side.fx.values import output_values
from linux_side.guards.profiles import Profiles
from linux_side.lowering.binding_names import BindingNames, name_bindings
from linux_side.lowering.culprit import (
    OperatorRefusedError,
    empty_operators,
    first_refused,
    refused_dtype,
)
from linux_side.lowering.engine_metadata import encode_metadata
from linux_side.lowering.fallback import AttemptFailedError
from linux_side.lowering.network_check import check_network
from linux_side.lowering.parts import (
    call_of,
    engine_parts,
    graph_operators,
    operators_in_torch,
    reasons_in_torch,
    settings_of,
)
from linux_side.options import BuildOptions
from linux_side.rewrites.siblings import join_siblings
from toolchain.engine.info import EngineInfo, RuntimeDevice
from toolchain.errors import BuildFailedError, TrtcrossError
from toolchain.graph.writer import engine_from_file
from toolchain.manifest.models import Binding, ShapeRange
from toolchain.targets import AMPERE, Platform

PartitionHook = Callable[[str, torch.fx.GraphModule], None]
NetworkHook = Callable[[str, Any], None]


@dataclass(frozen=True)
class EngineFacts:
    """The parts of an engine's manifest entry that its engine info does not have."""

    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]]


@dataclass
class Compiled:
    """A compiled graph.

    Attributes:
        gm: the partitioned graph, with an :class:`EngineModule` in place of each engine's part.
        facts: the facts of each engine, by the engine's name.
        fallback: how often each operator stays in PyTorch.
        in_engines: how many operators are in engines.
    """

    gm: torch.fx.GraphModule
    facts: dict[str, EngineFacts] = field(default_factory=dict)
    fallback: Counter[str] = field(default_factory=Counter)
    in_engines: int = 0


def convert_partitions(
    partitioned: torch.fx.GraphModule,
    options: BuildOptions,
    builder: EngineBuilder,
    profiles: Profiles,
    spool: Path,
    on_partition: PartitionHook | None = None,
    on_network: NetworkHook | None = None,
    deadline: Callable[[], float] = lambda: float("inf"),
    on_step: OnStep | None = None,
) -> Compiled:
    """Builds an engine for each ``_run_on_acc_*`` submodule and puts an :class:`EngineModule` in its place.

    Each plan is written to a file in ``spool`` as it is built, so that at most one is in memory.

    Args:
        partitioned: the partitioned graph, changed in place.
        options: the build's options.
        builder: the backend.
        profiles: for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.
        spool: the folder for the plans.
        on_partition: called with each partition just before it is converted.
        on_network: called with each partition's ``INetworkDefinition`` just before its engine is built.
        deadline: returns when, by ``time.monotonic``, the search for an operator that TensorRT refuses must end. It is
            called at the first such search.
        on_step: called with the builder's step and the fraction of all engines done, from 0 to 1, from any thread.

    Raises:
        BuildFailedError: there is nothing for TensorRT to do, or a network differs from the model.
        AttemptFailedError: TensorRT does not take some operators. No engine is built after the first such operator; the
            remaining partitions are converted to find all of them.
    """
    settings = settings_of(options, builder)
    compiled = Compiled(partitioned, fallback=operators_in_torch(partitioned))
    refusals: list[OperatorRefusedError] = []

    def network(part: torch.fx.GraphModule, names: BindingNames | None = None) -> tuple[list[Any], Any]:
        inputs = upstream.partition_inputs(part, profiles)
        named = (names.inputs, names.outputs) if names else ()
        interpreter = upstream.interpreter(part, inputs, settings, *named)
        with _node_named(interpreter):
            upstream.construct_network(interpreter)
        return inputs, interpreter

    def build(part: torch.fx.GraphModule) -> None:
        builder.build(network(part)[1], options.target, options.capabilities)

    parts, names = list(engine_parts(partitioned)), name_bindings(partitioned)

    def step_of(index: int) -> OnStep | None:
        if on_step is None:
            return None
        tell = on_step
        return lambda step, reached: tell(step, (index + reached) / len(parts))

    for index, (name, partition) in enumerate(parts):
        compiled.in_engines += len(graph_operators(partition))
        builder.prepare(partition)
        join_siblings(partition, lambda matrices: joined(matrices, spool))
        if on_partition:
            on_partition(name, partition)
        try:
            with _empty_blamed(partition):
                with _blamed(partition, build, deadline):
                    inputs, interpreter = network(partition, names[name])
                check_network(interpreter)
                if refusals:
                    continue
                if on_network:
                    on_network(name, upstream.network_of(interpreter))
                path = spool / f"{name}.plan"
                with _blamed(partition, build, deadline, interpreter):
                    builder.build_file(interpreter, options.target, options.capabilities, path, step_of(index))
        except OperatorRefusedError as refusal:
            refusals.append(refusal)
            continue
        info = _engine_info(name, partition, interpreter, options, builder)
        compiled.facts[info.name] = EngineFacts(*_bindings(interpreter), _profile_facts(info, inputs))
        call_of(partitioned, name).meta["val"] = output_values(partition)
        partitioned.add_module(name, EngineModule(CompiledEngine(info, engine_from_file(path))))
        del interpreter
    if refusals:
        raise AttemptFailedError(refusals)
    if not compiled.facts and not options.allow_no_engine:
        raise BuildFailedError(
            f"TensorRT can take no operator of this model{reasons_in_torch(partitioned)}",
            where="partitioning",
            remedy="it needs no TensorRT to run: save it with torch.export.save, or make a plain program of it with "
            "--allow-no-engine",
        )
    return compiled


def for_platform(compiled: Compiled, platform: Platform) -> None:
    """Sets the platform in each engine's info, because one engine may serve several platforms."""
    for module in compiled.gm.children():
        if isinstance(module, EngineModule):
            info = replace(module.compiled.info, target_platform=platform.runtime_name)
            module.compiled = replace(module.compiled, info=info)


@contextmanager
def _node_named(interpreter: Any) -> Iterator[None]:
    """Turns an error of a converter into a refusal of the operator that it converts."""
    with upstream.builder_errors() as messages:
        try:
            yield
        except (TrtcrossError, MemoryError):
            raise
        except Exception as error:
            node = upstream.node_at_fault(interpreter)
            if node is None:
                raise
            reason = f"its converter raised {type(error).__name__}: {_line(error)}"
            reason += f" ({upstream.words(messages)})" if messages else ""
            raise OperatorRefusedError([node], reason, by_itself=True) from error


@contextmanager
def _empty_blamed(partition: torch.fx.GraphModule) -> Iterator[None]:
    """Turns any error into a refusal of the operators on tensors without elements, if the partition has any."""
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
    """Turns any other error into a refusal of the operator that causes it.

    Args:
        partition: the partition that is converted or built.
        build: builds an engine of a graph, or raises.
        deadline: returns when the search for the operator must end.
        interpreter: the partition's interpreter, if its network is complete and the builder is running.

    Raises:
        OperatorRefusedError: with the operator.
        BuildFailedError: the builder supports no engine in a dtype of the operator, or the time is over.
    """
    try:
        yield
    except (OperatorRefusedError, MemoryError, OSError):
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
