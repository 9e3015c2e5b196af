"""The phases of a build, in one process: export, lower, convert, serialize, write."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from linux_side.backends.base import EngineBuilder
from linux_side.backends.monitor import OnStep
from linux_side.cache.key import program_key
from linux_side.cache.notes import Notes
from linux_side.driver.allocator import trim
from linux_side.driver.artifact_writer import Serialized, program_digest, serialize_program, write_artifact
from linux_side.driver.room import Needs, require_room
from linux_side.driver.stages import seen_by
from linux_side.exporter import export
from linux_side.exporter.engine_module import CompiledEngine, compiled_engine
from linux_side.exporter.program import CallStructure
from linux_side.frontend.dynamic_shapes import narrowed_ranges, profiles_for, program_guards
from linux_side.frontend.golden_entry import describe_golden, serialize_golden, tolerance_for
from linux_side.frontend.leaves import describe_inputs, describe_outputs, forward_names
from linux_side.frontend.source import Source, load_source, require_precision
from linux_side.frontend.supported import check_model
from linux_side.fx.code import recompiled_on_use
from linux_side.fx.spill import Spill, size_of, tensors_of
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.layout import copy_explicitly
from linux_side.guards.locations import located_guards
from linux_side.guards.profiles import Profiles, require_guards
from linux_side.guards.tracing import small_sizes_of
from linux_side.lowering.convert import Compiled, NetworkHook, PartitionHook, convert_partitions, for_platform
from linux_side.lowering.fallback import Fallback
from linux_side.lowering.lower import lower_program, partition_graph
from linux_side.lowering.small_sizes import drop_refuted_by_lowering
from linux_side.options import BuildOptions
from linux_side.precision.mixed import Mixed, mix, mix_within
from toolchain.checker.writing import require_no_torch
from toolchain.engine.info import CURRENT_ABI
from toolchain.engine.plan_header import HEADER_SIZE, PlanHeader, parse_plan_header
from toolchain.graph.skeleton import engine_token
from toolchain.graph.torch_free import surely_runs_without_torch
from toolchain.guards.grammar import Operation
from toolchain.host.installed import own_version
from toolchain.manifest.install import install_lines
from toolchain.manifest.models import (
    FALLBACK_WARNINGS,
    GOLDEN_PRECISION,
    GOLDEN_WARNINGS,
    BuildRecord,
    CallSpec,
    Coverage,
    FallbackOperator,
    Manifest,
    Producer,
    SourceModel,
    TargetSpec,
)
from toolchain.targets import DEVICE

Phase = Callable[[str], AbstractContextManager[None]]

# A search for a precision may take this many times as long as the phases before it.
_SEARCH_FACTOR = 3.0


@dataclass
class Begun:
    """The results of a build's stages so far; each stage fills in its own."""

    source: Source
    guards: ProgramGuards = field(init=False)
    profiles: Profiles = field(init=False)
    mixed: Mixed | None = None
    lowered: torch.fx.GraphModule = field(init=False)
    compiled: Compiled = field(init=False)
    kept: list[str] = field(default_factory=list)


@dataclass
class Pipeline:
    """The stages of one build.

    Attributes:
        options: the build's options.
        builder: the backend.
        spool: a folder for temporary files.
        phase: a context manager that times and reports each phase.
        seconds: the duration of each finished phase, filled in by ``phase``.
        on_partition: called with each partition just before it is converted.
        on_network: called with each ``INetworkDefinition`` just before its engine is built.
        cache_key: the build's key in the build cache; None if it may not be stored there.
        warn: receives warnings for the user, which the manifest repeats.
        notes: the notes of earlier builds with the same key.
        started: when the build began, by ``time.monotonic``.
        on_step: called with the builder's current step and the fraction of all engines done, from any thread.
        on_needs: called with the estimate of what the build needs.
        begun: the results of the stages so far, from the export on.
    """

    options: BuildOptions
    builder: EngineBuilder
    spool: Path
    phase: Phase
    seconds: dict[str, float] = field(default_factory=dict)
    on_partition: PartitionHook | None = None
    on_network: NetworkHook | None = None
    cache_key: str | None = None
    warn: Callable[[Iterable[str]], None] = lambda _: None
    notes: Notes = field(default_factory=Notes)
    started: float = field(default_factory=time.monotonic)
    on_step: OnStep | None = None
    on_needs: Callable[[Needs], None] = lambda _: None
    begun: Begun = field(init=False)

    def __post_init__(self) -> None:
        self.spill = Spill(self.spool)

    def move_to(self, spool: Path) -> None:
        """Writes further temporary files into another folder. Files that are mapped already stay where they are."""
        self.spool = self.spill.folder = spool

    def import_upstream(self) -> None:
        """Imports Torch-TensorRT, as a phase of its own."""
        with self.phase("tensorrt"):
            self.builder.import_upstream()

    def load(self, model: str, name: str | None) -> Source:
        """Loads and exports the model.

        Args:
            model: a path or ``module:factory``.
            name: the model's name; None for its own.
        """
        with self.phase("export"), recompiled_on_use():
            source = load_source(model, seen_by("export", self.options))
            source.name = name or source.name
            self.spill.watch(source.files)
            self._release(source.program)
        self.begun = Begun(source)
        return source

    def _release(self, program: torch.export.ExportedProgram) -> None:
        """Moves a program's weights to the disk, and returns the freed memory to the system."""
        self.spill.move(tensors_of(program))
        trim()

    def program_key(self) -> str:
        """Returns the build's key in the build cache."""
        source = self.begun.source
        source.digest = source.digest or program_digest(source.program)
        golden = serialize_golden(source.golden.samples) if source.golden.samples else b""
        golden += json.dumps(self.golden_warnings()).encode()
        gpu = None if self.builder.backend.portable else self._producer().gpu
        classes = [entry.model_dump() for entry in source.classes]
        return program_key(source.digest, golden, source.name, gpu, self.options, classes)

    @property
    def weights(self) -> int:
        """Bytes of the program's weights."""
        return size_of(self.begun.source.program)

    def golden_warnings(self) -> list[str]:
        """Returns the warnings about golden I/O at the tolerance of this build."""
        return self.begun.source.golden.warnings_at(tolerance_for(self.options, self.begun.source.program))

    def require_sound(self) -> None:
        """Refuses options that do not fit this program.

        This check reads options of later stages too, so builds never share it.

        Raises:
            UsageError: an option does not fit the program.
            BuildFailedError: the program cannot be compiled.
        """
        source = self.begun.source
        require_precision(source.program, self.options, source.name)
        check_model(source.program, self.options.torch_executed_ops)

    def run_source(self, source: Source, out: Path) -> Manifest:
        """Runs the stages after the export, and writes the artifact to ``out``."""
        self.begun = Begun(source)
        self.require_sound()
        self.choose_precision(out)
        self.lower()
        self.convert()
        return self.write(out)

    def choose_precision(self, out: Path) -> None:
        """Checks memory, disk and guards, then converts the program to halves if the options ask for it.

        Raises:
            BuildFailedError: there is too little memory or disk, or no assignment of precisions is accurate enough.
            UsageError: the requested sizes do not fit the program's guards.
        """
        begun, options = self.begun, seen_by("precision", self.options)
        program = begun.source.program
        self.on_needs(Needs.of(self.weights, options))
        require_room(Needs.left(self.weights, options), self.spool, out, lambda text: self.warn([text]))
        begun.guards = program_guards(program)
        begun.profiles = profiles_for(program, options.dynamic, begun.guards.sizes)
        require_guards(begun.guards, begun.profiles, program.range_constraints)
        with self.phase("digest"):
            begun.source.digest = begun.source.digest or program_digest(program)
            copy_explicitly(program)
        begun.mixed = self._in_precision(begun.source, options)

    def lower(self) -> None:
        """Lowers the program to the operators that are partitioned, and drops guards that the lowering refutes."""
        begun, options = self.begun, seen_by("lower", self.options)
        with self.phase("lower"), located_guards(), recompiled_on_use():
            assigned = begun.mixed.program if begun.mixed else begun.source.program
            begun.lowered = lower_program(assigned, options, self.builder)
            drop_refuted_by_lowering(assigned, begun.lowered, begun.guards)

    def convert(self) -> None:
        """Partitions the lowered program and builds the engines, with fewer operators in them where TensorRT fails."""
        begun, options = self.begun, seen_by("convert", self.options)
        program, guards, profiles = begun.source.program, begun.guards, begun.profiles
        refuse = options.require_full_coverage
        fallback = Fallback(begun.lowered, started=self.started, notes=self.notes, warn=self.warn, refuse=refuse)

        def require_ranges() -> None:
            require_guards(guards, profiles, program.range_constraints)
            guards.require_ranges(narrowed_ranges(program, profiles))

        def attempt() -> Compiled:
            with located_guards(), recompiled_on_use():
                partitioned = self.partitioned(begun.lowered)
            require_ranges()
            hooks = self.on_partition, self.on_network, fallback.deadline, self.on_step
            return convert_partitions(partitioned, options, self.builder, profiles, self.spool, *hooks)

        with self.phase("convert"), small_sizes_of(program.range_constraints):
            begun.compiled = fallback.run(attempt)
            require_ranges()  # a rewrite of a partition may add guards on sizes
        begun.kept = fallback.warnings

    def write(self, out: Path) -> Manifest:
        """Serializes the compiled program, writes the artifact to ``out`` and returns its manifest."""
        begun = self.begun
        source, compiled = begun.source, begun.compiled
        for_platform(compiled, self.options.target)
        self.spill.require_unchanged()
        with self.phase("serialize"):
            result, serialized = self._serialize(source, compiled, begun.profiles)
            if self.options.require_no_torch:
                require_no_torch(serialized.skeleton)
            samples = source.golden.samples
            golden = serialize_golden(samples) if samples else None
            rules = begun.guards.rules(narrowed_ranges(source.program, begun.profiles))
        with self.phase("write"):
            described = self._describe(source, result, compiled, rules, begun.mixed, begun.kept)
            return write_artifact(out, serialized, _engines(compiled), compiled.facts, golden, described)

    def _in_precision(self, source: Source, options: BuildOptions) -> Mixed | None:
        """Returns the program in halves, or None if the options do not ask for them."""
        program = source.program
        if options.halves is None:
            return None
        keep, plan = options.keep_fp32, options.precision_plan.keep_fp32 if options.precision_plan else []
        samples = [(sample.inputs, sample.outputs) for sample in source.golden.samples]
        budget = (
            _SEARCH_FACTOR * sum(self.seconds.values()) or math.inf
        )  # without times, as in tests, there is no limit
        with self.phase("precision"), small_sizes_of(program.range_constraints):
            tolerance = tolerance_for(options, program).relative_l2
            if options.halves == "auto":
                mixed = mix_within(program, tolerance, keep, samples, tf32=options.tf32, seconds=budget)
            else:
                mixed = mix(program, options.halves, tolerance, keep, samples, tf32=options.tf32, plan=plan)
            self._release(mixed.program)
        self.warn(mixed.record.warnings)
        return mixed

    def partitioned(self, lowered: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Returns the lowered program, split into partitions for TensorRT and operators that stay in PyTorch."""
        return partition_graph(lowered, seen_by("convert", self.options), self.builder)

    def _serialize(
        self, source: Source, compiled: Compiled, profiles: Profiles
    ) -> tuple[torch.export.ExportedProgram, Serialized]:
        program = source.program
        result = export(
            compiled.gm,
            cross_compile=True,
            structure=CallStructure(program.call_spec.in_spec, program.call_spec.out_spec, forward_names(program)),
            range_constraints=narrowed_ranges(program, profiles),
            original={spec.target: spec for spec in program.graph_signature.input_specs if spec.target},
            engine_field=lambda _, index: engine_token(index),
            allow_no_engine=self.options.allow_no_engine,
        )
        return result, serialize_program(result, self.spool)

    def _describe(
        self,
        source: Source,
        result: torch.export.ExportedProgram,
        compiled: Compiled,
        rules: list[Operation],
        mixed: Mixed | None,
        kept: list[str],
    ) -> dict[str, Any]:
        producer, target = self._producer(), self._target(compiled)
        fallback = [
            FallbackOperator(operator=name, count=count, device=DEVICE)
            for name, count in sorted(compiled.fallback.items())
        ]
        total = compiled.in_engines + sum(compiled.fallback.values())
        samples = source.golden.samples
        said = {
            GOLDEN_WARNINGS: self.golden_warnings(),
            GOLDEN_PRECISION: source.golden.precision,
            FALLBACK_WARNINGS: kept,
        }
        return {
            "created": datetime.now(timezone.utc),
            "producer": producer,
            "model": SourceModel(name=source.name, digest=source.digest or program_digest(source.program)),
            "settings": self.options.model_dump(mode="json") | {name: value for name, value in said.items() if value},
            "target": target,
            "install": install_lines(target, producer, without_torch=surely_runs_without_torch(compiled.fallback)),
            "call": CallSpec(
                in_spec=pytree.treespec_dumps(result.call_spec.in_spec),
                out_spec=pytree.treespec_dumps(result.call_spec.out_spec),
                argument_names=forward_names(source.program),
            ),
            "inputs": describe_inputs(result, result.range_constraints),
            "outputs": describe_outputs(result, result.range_constraints),
            "fallback": fallback,
            "coverage": Coverage(operators=total, in_engines=compiled.in_engines),
            "golden": describe_golden(samples, tolerance_for(self.options, source.program)) if samples else None,
            "guards": [str(rule) for rule in rules],
            "classes": source.classes,
            "precision": mixed.record if mixed else None,
            "build": BuildRecord(seconds=self.seconds, cache_key=self.cache_key, from_cache=False),
        }

    def _producer(self) -> Producer:
        torch_tensorrt, tensorrt = self.builder.packages()
        return Producer(
            trtcross=own_version(),
            torch=torch.__version__,
            torch_tensorrt=torch_tensorrt,
            tensorrt=tensorrt,
            python=platform.python_version(),
            os=f"{platform.system()} {platform.machine()}",
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            driver=None,
        )

    def _target(self, compiled: Compiled) -> TargetSpec:
        header = next(map(_header, _engines(compiled)), PlanHeader(self.builder.backend))
        capabilities = header.capabilities or self.options.capabilities
        return TargetSpec(
            platform=self.options.target,
            compute_capabilities=[str(capability) for capability in capabilities],
            backend=self.builder.backend,
            runtime=header.release or self.builder.packages()[1].version,
            abi_version=CURRENT_ABI,
        )


def _header(engine: CompiledEngine) -> PlanHeader:
    head = bytes(next(iter(engine.plan.chunks())))[:HEADER_SIZE]
    return parse_plan_header(head, where=f"engine {engine.info.name}")


def _engines(compiled: Compiled) -> list[CompiledEngine]:
    calls = [node for node in compiled.gm.graph.nodes if node.op == "call_module"]
    found = [compiled_engine(compiled.gm.get_submodule(node.target)) for node in calls]
    return [engine for engine in found if engine is not None]
