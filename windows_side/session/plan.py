"""What the lanes of a session share, what each has of its own, and where values are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from toolchain.graph.program import EngineStep, Program, ViewStep
from toolchain.manifest.models import Manifest, ValueSpec
from windows_side.engines.cuda import Gpu, Stream
from windows_side.engines.engine import EngineContext, Shape
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.memory import DeviceMemory, PinnedMemory
from windows_side.session.weights import Weight

ALIGNMENT = 256  # of what TensorRT reads and writes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value on the GPU, in C order."""

    pointer: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What every lane of a session shares.

    Attributes:
        dtypes: by the names of values.
        inputs: what the manifest says of the call's leaves.
    """

    program: Program
    dtypes: dict[str, str]
    inputs: Sequence[ValueSpec]

    @cached_property
    def results(self) -> frozenset[str]:
        """The values that are outputs."""
        return frozenset(output.name for output in self.program.outputs if output.name)

    @cached_property
    def names(self) -> list[tuple[int, str]]:
        """The leaves that steps and outputs take, those that were cast behind the call's own; the names of values."""
        leaves = (*self.program.inputs, *(cast.output for cast in self.program.casts))
        return [(index, name) for index, name in enumerate(leaves) if name in self.program.used]

    @cached_property
    def viewed(self) -> dict[str, str]:
        """Of each view the value that it is a view of in the end."""
        found: dict[str, str] = {}
        for step in self.program.steps:
            if isinstance(step, ViewStep):
                found[step.output] = found.get(step.tensor, step.tensor)
        return found

    @cached_property
    def casts_outputs(self) -> bool:
        return any(output.cast for output in self.program.outputs)

    def size(self, name: str, shape: Shape) -> int:
        return size_in_bytes(shape, self.dtypes[name])

    @cached_property
    def only_engine(self) -> EngineStep | None:
        """The program's engine, where there is one and no more."""
        engines = [step for step in self.program.steps if isinstance(step, EngineStep)]
        return engines[0] if len(engines) == 1 else None


def plan_of(program: Program, manifest: Manifest, weights: Mapping[str, Weight]) -> Plan:
    """The plan of a program, whose values get their dtypes from weights, the manifest's inputs and its engines."""
    found = {name: weights[fqn].dtype for name, fqn in program.state.items()}
    found |= {n: str(spec.dtype) for n, spec in zip(program.inputs, manifest.inputs, strict=True) if n and spec.dtype}
    found |= {cast.output: cast.dtype for cast in program.casts}
    for step in program.steps:
        if isinstance(step, EngineStep):
            bindings = manifest.engines[step.engine].outputs
            found |= {name: binding.dtype for name, binding in zip(step.outputs, bindings, strict=True)}
        elif isinstance(step, ViewStep):
            found[step.output] = found[step.tensor]
    return Plan(program, found, manifest.inputs)


@dataclass
class Workspace:
    """What one call at a time works with.

    Attributes:
        contexts: one of each engine, in the order of the artifact.
        state: weights and buffers on the GPU, which all lanes share.
        stream: where nothing else says; the caller's, if ``named``, who then orders his own work around it.
    """

    plan: Plan
    contexts: list[EngineContext]
    state: dict[str, Tensor]
    gpu: Gpu
    stream: Stream
    named: bool
    memory: DeviceMemory = field(default_factory=DeviceMemory)
    to_gpu: PinnedMemory = field(default_factory=PinnedMemory)
    from_gpu: PinnedMemory = field(default_factory=PinnedMemory)

    def close(self) -> None:
        """Frees everything but arrays that the caller has."""
        self.contexts.clear()
        self.memory.close()
        self.to_gpu.close()
        self.from_gpu.close()
