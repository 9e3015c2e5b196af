"""Differential proof without a GPU.

A real artifact is built in this process by the real builder, loaded by the real consumer, and run by an interpreter
over its graph that, for each engine, runs in PyTorch on the CPU the very partition from which the engine was built.
What that computes must be the partitioned graph's own result to the bit, so every mistake in wiring shows: a wrong
order, a wrong ``getitem``, a lost buffer, a clashing name.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.backends import engine_builder
from linux_side.fx.state import STATE
from linux_side.options import BuildOptions, DynamicDimension
from toolchain import Artifact, open_artifact
from toolchain.targets import Backend
from windows_side.execution.model import LoadedModel
from windows_side.loader.loading import load_program
from windows_side.loader.runtime_library import load_runtime

CPU = torch.device("cpu")


@cache
def imported_builder() -> Any:
    """The TensorRT-RTX builder, its Torch-TensorRT imported once in this process."""
    builder = engine_builder("tensorrt-rtx")
    builder.import_upstream([])
    return builder


@dataclass
class Built:
    """An artifact, and what it was built from.

    Attributes:
        reference: the lowered, partitioned graph before conversion.
        partitions: by the engine's name, a copy of the partition from which it was built.
    """

    artifact: Artifact
    program: ExportedProgram
    reference: torch.fx.GraphModule
    partitions: dict[str, torch.fx.GraphModule] = field(default_factory=dict)

    def loaded(self) -> ExportedProgram:
        """The artifact's program on the CPU, each engine's stand-in in place: its partition's index, as a tensor."""
        load_runtime(Backend.TENSORRT_RTX)
        names = list(self.partitions)
        return load_program(self.artifact, CPU, None, lambda fields: torch.tensor(names.index(str(fields[1]))))

    @cached_property
    def model(self) -> LoadedModel:
        """The artifact as its user has it, state and checks and all, on the CPU with stand-in engines."""
        model = LoadedModel(self.loaded(), self.artifact.manifest, CPU)
        put_partitions(model._flat, list(self.partitions.values()))
        return model

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The artifact's result; its state goes on from call to call."""
        return self.model(*args, **kwargs)

    def buffers(self) -> list[torch.Tensor]:
        """The loaded model's state that calls change."""
        changes = self.reference.meta[STATE]
        return [self.model._flat.get_buffer(change.target) for change in changes if change.value is not None]

    def expected(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The leaves of the partitioned graph's own result, and behind them the state's new values."""
        leaves = [*self.model._call.leaves(args, kwargs), *self.buffers()]
        with torch.no_grad():
            return pytree.tree_leaves(torch.fx.Interpreter(self.reference).run(*leaves, enable_io_processing=False))


def put_partitions(gm: torch.fx.GraphModule, partitions: list[torch.fx.GraphModule]) -> None:
    """Lets each ``execute_engine`` node run its partition: the operator itself takes nothing but a real engine."""

    def execute_partition(inputs: list[torch.Tensor], index: torch.Tensor) -> list[torch.Tensor]:
        result = partitions[int(index)](*inputs)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    for node in gm.graph.nodes:
        if node.target is torch.ops.tensorrt.execute_engine.default:
            node.target = execute_partition
    gm.recompile()


@contextmanager
def _untimed(_name: str) -> Iterator[None]:
    yield


def build_here(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    folder: Path,
    dynamic: tuple[str, ...] = (),
    **options: Any,
) -> Built:
    """Exports and builds a model in this process with the real builder.

    Args:
        module: put into eval mode here, as a factory does it.
        folder: where the artifact goes.
        dynamic: as on the command line.
        options: of :class:`linux_side.options.BuildOptions`.
    """
    from linux_side.frontend.source import export_source

    builder = imported_builder()
    parsed = BuildOptions(dynamic=[DynamicDimension.parse(text) for text in dynamic], **options)
    return build_source(export_source("test", module.eval(), args, kwargs or {}, parsed), parsed, builder, folder)


def build_source(source: Any, options: BuildOptions, builder: Any, folder: Path) -> Built:
    """Builds the artifact of a program that is there already."""
    from linux_side.driver import pipeline as pipelines

    taken: dict[str, Any] = {}

    class Recording(pipelines.Pipeline):
        def partitioned(self, program: ExportedProgram) -> torch.fx.GraphModule:
            partitioned = super().partitioned(program)
            taken["reference"] = copy.deepcopy(partitioned)
            return partitioned

    partitions: dict[str, torch.fx.GraphModule] = {}

    def remember(name: str, partition: torch.fx.GraphModule) -> None:
        partitions[f"{name}_engine"] = copy.deepcopy(partition)

    out = Path(tempfile.mkdtemp(dir=folder)) / "artifact.pt2"
    with tempfile.TemporaryDirectory() as spool:
        pipeline = Recording(options, builder, Path(spool), _untimed, on_partition=remember)
        pipeline.run_source(source, out)
    return Built(open_artifact(out), source.program, taken["reference"], partitions)


def assert_same_wiring(built: Built, *args: Any, **kwargs: Any) -> Any:
    """The artifact and the partitioned graph agree to the bit, in state too; returns the artifact's result."""
    leaves = pytree.tree_leaves((args, kwargs))
    want = built.expected(*args, **kwargs)
    result = built.run(*args, **kwargs)
    got = pytree.tree_leaves(result)
    buffers = iter(built.buffers())
    for change in built.reference.meta[STATE]:
        got.append(next(buffers) if change.value is not None else leaves[_user_inputs(built).index(change.target)])
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert torch.equal(a, b) or (
                torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
            )
        else:
            assert a == b
    return result


def _user_inputs(built: Built) -> list[str]:
    return [node.name for node in built.reference.graph.nodes if node.op == "placeholder"]
