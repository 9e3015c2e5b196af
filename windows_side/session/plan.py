"""The plan that the lanes of a session share, and the workspace that each of them has."""

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

ALIGNMENT = 256  # of the memory that TensorRT reads and writes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value on the GPU, in C order."""

    pointer: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """The program of a session, and what follows from it; all lanes share it.

    Attributes:
        program: the artifact's graph.
        dtypes: the dtypes of values, by name.
        inputs: the manifest's specs of the call's leaves.
    """

    program: Program
    dtypes: dict[str, str]
    inputs: Sequence[ValueSpec]

    @cached_property
    def results(self) -> frozenset[str]:
        """The names of the values that are outputs."""
        return frozenset(output.name for output in self.program.outputs if output.name)

    @cached_property
    def names(self) -> list[tuple[int, str]]:
        """The indices and the value names of the leaves that are used; leaves that were cast follow the call's own."""
        leaves = (*self.program.inputs, *(cast.output for cast in self.program.casts))
        return [(index, name) for index, name in enumerate(leaves) if name in self.program.used]

    @cached_property
    def viewed(self) -> dict[str, str]:
        """The name of the value whose memory each view has, by the view's name; that value is not a view itself."""
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
        """The step of the program's engine, where there is exactly one; else None."""
        engines = [step for step in self.program.steps if isinstance(step, EngineStep)]
        return engines[0] if len(engines) == 1 else None


def plan_of(program: Program, manifest: Manifest, weights: Mapping[str, Weight]) -> Plan:
    """Makes the plan of a program; the dtypes of values are those of weights, of inputs and of engines' outputs."""
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
    """The contexts, memory and stream of one lane.

    Attributes:
        contexts: one context of each engine, in the artifact's order.
        state: weights and buffers on the GPU, which all lanes share.
        stream: the stream for calls whose arrays do not bring one.
        named: whether ``stream`` is the caller's, who then orders other work around it.
        memory: blocks on the GPU.
        to_gpu: pinned memory for inputs.
        from_gpu: pinned memory for outputs.
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
