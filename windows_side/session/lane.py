"""One call at a time: inputs to the GPU, the program's steps, outputs back, state brought up to date."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from toolchain.errors import TrtcrossError
from toolchain.manifest.models import ValueSpec
from windows_side.calling.input_rules import wrong_input
from windows_side.session import cuda
from windows_side.session.arrays import NUMPY, DeviceArrays, Given, Kind
from windows_side.session.cuda import Gpu, Stream
from windows_side.session.device_array import DeviceArray
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.engine import EngineContext, Shape
from windows_side.session.memory import DeviceMemory, PinnedMemory
from windows_side.session.program import ArithmeticStep, EngineStep, Program, SizeStep

_ALIGNMENT = 256  # of what TensorRT reads and writes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value on the GPU, in C order."""

    pointer: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What every lane of a session shares.

    Attributes:
        dtypes: of engines' outputs and of state, by the names of values.
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
        """The leaves that are tensors, and the names of their values."""
        return [(index, name) for index, name in enumerate(self.program.inputs) if name]

    def size(self, name: str, shape: Shape) -> int:
        return size_in_bytes(shape, self.dtypes[name])


class Lane:
    """Execution contexts, and the memory and the stream that go with them. Not for several threads at once."""

    def __init__(
        self, plan: Plan, contexts: Sequence[EngineContext], state: dict[str, Tensor], gpu: Gpu, stream: Stream | None
    ) -> None:
        """
        Args:
            contexts: one of each engine, in the order of the artifact.
            state: weights and buffers on the GPU.
            stream: the caller's, who then orders his own work around it.
        """
        self.plan = plan
        self.contexts = list(contexts)
        self.state = state
        self.gpu = gpu
        self.named = stream is not None
        self.stream = cuda.create_stream() if stream is None else stream
        self.memory = DeviceMemory()
        self.to_gpu = PinnedMemory()
        self.from_gpu = PinnedMemory()
        self._done = cuda.Event()
        self._pending: Stream | None = None

    def call(self, leaves: Sequence[Given | None]) -> list[Any]:
        """Runs the program; returns when its results are there.

        With a stream of the caller's, and with torch's tensors on the GPU, it returns when all is enqueued.

        Args:
            leaves: of the call, None where the input is no tensor. Outputs are of the kind of the first that is one.

        Raises:
            UsageError: an input that the model changes cannot be written to.
            IncompatibleError: memory is short, or the GPU failed.
        """
        kind: Kind = NUMPY
        on_host = True
        for leaf in leaves:
            if leaf is not None:
                kind, on_host = leaf.kind, not leaf.kind.on_gpu
                break
        current = kind.stream()
        # On the default stream TensorRT would wait for the whole GPU.
        stream = self.stream if self.named or not current else current
        apart = current is not None and current != stream
        if self._pending is not None and self._pending != stream:
            self._done.hold_up(stream)
        if current is not None and apart:
            self._done.record(current)
            self._done.hold_up(stream)
        run = _Run(self, leaves, kind, stream)
        try:
            outputs = run.outputs()
            if on_host or run.reads_host or (current is None and not self.named):
                cuda.synchronize(stream)
                self._pending = None
            else:
                self._done.record(stream)
                self._pending = stream
                if current is not None and apart and not self.named:
                    self._done.hold_up(current)
        except BaseException:
            run.abandon()
            raise
        run.finish()
        if apart and self.named:
            for leaf in leaves:
                if leaf is not None:
                    leaf.kind.keep_for(leaf.keeps, stream)
            for output in outputs:
                kind.keep_for(output, stream)
        return outputs

    def close(self) -> None:
        """Waits for the last call, and frees everything but arrays that the caller has."""
        if self._pending is not None:
            self._done.synchronize()
        self.contexts.clear()
        self.memory.close()
        self.to_gpu.close()
        self.from_gpu.close()
        self._done.close()
        if not self.named:
            cuda.destroy_stream(self.stream)


class _Run:
    """One call's values.

    Attributes:
        reads_host: whether some of its inputs are on the host.
    """

    def __init__(self, lane: Lane, leaves: Sequence[Given | None], kind: Kind, stream: Stream) -> None:
        self._lane = lane
        self._plan, self._program, self._memory = lane.plan, lane.plan.program, lane.memory
        self._leaves = leaves
        self._kind = kind
        self._stream = stream
        self._tensors: dict[str, Tensor] = dict(lane.state)
        self._sizes: dict[str, int] = {}
        self._given: dict[str, Given] = {}
        self._results: dict[str, Any] = {}
        self._blocks: list[int] = []
        self._to_host: list[tuple[int, int, int]] = []  # target, source, size
        self.reads_host = False

    def outputs(self) -> list[Any]:
        """Enqueues everything; arrays of the host are filled by :meth:`finish`."""
        program = self._program
        if program.input_updates:
            self._require_writable()
        self._read_inputs()
        wanted = self._plan.results if self._kind.on_gpu else frozenset()
        for step in program.steps:
            if isinstance(step, EngineStep):
                self._run_engine(step, wanted)
            elif isinstance(step, SizeStep):
                self._sizes[step.output] = self._tensors[step.tensor].shape[step.dim]
            else:
                self._sizes[step.output] = self._computed(step)
        results = [output.constant if output.name is None else self._result(output.name) for output in program.outputs]
        if program.state_updates or program.input_updates:
            self._update()
        if self._to_host:
            self._copy_to_host()
        return results

    def finish(self) -> None:
        """Fills the outputs that are on the host, behind the stream's work."""
        for target, source, size in self._to_host:
            ctypes.memmove(target, source, size)
        self._give_back()

    def abandon(self) -> None:
        """After an error: nothing may be given back while the GPU works with it."""
        try:
            cuda.synchronize(self._stream)
        except TrtcrossError:
            return  # the first error is the one to tell
        self._give_back()

    def _give_back(self) -> None:
        for block in self._blocks:
            self._memory.give_back(block)

    def _require_writable(self) -> None:
        for index, _ in self._program.input_updates:
            leaf = self._leaves[index]
            if leaf is not None and (leaf.read_only or leaf.copied):
                words = "read-only" if leaf.read_only else "not in C order"
                raise wrong_input(self._plan.inputs[index], f"is {words}, and the model changes it in place")

    def _read_inputs(self) -> None:
        host: list[tuple[str, Given, int]] = []
        for index, name in self._plan.names:
            leaf = self._leaves[index]
            if leaf is None:
                continue
            self._given[name] = leaf
            if leaf.gpu is None:
                host.append((name, leaf, size_in_bytes(leaf.shape, leaf.dtype)))
            else:
                self._tensors[name] = self._on_gpu(leaf)
        if host:
            self.reads_host = True
            pieces = self._lane.to_gpu.reserve([size for _, _, size in host])
            for piece, (name, leaf, size) in zip(pieces, host, strict=True):
                ctypes.memmove(piece, leaf.pointer, size)
                tensor = self._tensors[name] = self._new(leaf.shape, size)
                cuda.copy_to_device(tensor.pointer, piece, size, self._stream)

    def _on_gpu(self, leaf: Given) -> Tensor:
        made_on = leaf.stream
        if made_on is None and leaf.kind is not self._kind and not self._lane.named:
            made_on = leaf.kind.stream()
        if made_on is not None and made_on != self._stream:
            ready = cuda.Event()
            ready.record(made_on)
            ready.hold_up(self._stream)
            ready.close()
        if leaf.pointer and not leaf.pointer % _ALIGNMENT:
            return Tensor(leaf.pointer, leaf.shape)
        size = size_in_bytes(leaf.shape, leaf.dtype)
        tensor = self._new(leaf.shape, size)
        if size:
            cuda.copy_within_device(tensor.pointer, leaf.pointer, size, self._stream)
        return tensor

    def _run_engine(self, step: EngineStep, wanted: frozenset[str]) -> None:
        inputs = [self._tensors[name] for name in step.inputs]

        def place(index: int, shape: Shape) -> int:
            name = step.outputs[index]
            if name in wanted:
                array, pointer = self._new_result(name, shape)
                if pointer and not pointer % _ALIGNMENT:
                    self._results[name] = array
                    return pointer
            return self._new(shape, self._plan.size(name, shape)).pointer

        context = self._lane.contexts[step.engine]
        found = context.run(self._stream, [t.shape for t in inputs], [t.pointer for t in inputs], place)
        for name, (pointer, shape) in zip(step.outputs, found, strict=True):
            self._tensors[name] = Tensor(pointer, shape)

    def _computed(self, step: ArithmeticStep) -> int:
        return step.function(*(self._sizes[item] if isinstance(item, str) else item for item in step.operands))

    def _result(self, name: str) -> Any:
        """The output of that name: an engine's where it was written, a number, the caller's own input, or a copy."""
        if name in self._sizes:
            return self._sizes[name]
        if name in self._results:
            return self._results[name]
        if name in self._given:
            return self._given[name].array
        tensor, size = self._tensors[name], self._plan.size(name, self._tensors[name].shape)
        array, pointer = self._new_result(name, tensor.shape)
        if not self._kind.on_gpu:
            self._to_host.append((pointer, tensor.pointer, size))
        elif size:
            cuda.copy_within_device(pointer, tensor.pointer, size, self._stream)
        self._results[name] = array
        return array

    def _new_result(self, name: str, shape: Shape) -> tuple[Any, int]:
        if isinstance(self._kind, DeviceArrays):
            array = DeviceArray(
                self._memory, self._lane.gpu, shape, self._plan.dtypes[name], self._stream if self._lane.named else None
            )
            return self._kind.finished(array), array.pointer
        return self._kind.empty(shape, self._plan.dtypes[name])

    def _update(self) -> None:
        """Brings state and inputs up to date; what is read must not have been written to before."""
        persistent = {tensor.pointer for tensor in self._lane.state.values()}
        persistent |= {self._tensors[name].pointer for name in self._given}
        sources = {name for _, name in (*self._program.state_updates, *self._program.input_updates)}
        values = {name: self._kept(self._tensors[name], name, persistent) for name in sources}
        for target, name in self._program.state_updates:
            own = self._lane.state[target]
            # An engine that shares the state's memory has written it already.
            if self._tensors[name].pointer != own.pointer:
                self._copy(own.pointer, values[name], name)
        for index, name in self._program.input_updates:
            leaf = self._leaves[index]
            if leaf is None:
                continue
            size = size_in_bytes(leaf.shape, leaf.dtype)
            if leaf.gpu is None:
                self._to_host.append((leaf.pointer, values[name].pointer, size))
            else:
                self._copy(leaf.pointer, values[name], name)

    def _kept(self, tensor: Tensor, name: str, persistent: set[int]) -> Tensor:
        if tensor.pointer not in persistent or name not in (*self._lane.state, *self._given):
            return tensor
        copy = self._new(tensor.shape, self._value_size(name, tensor.shape))
        self._copy(copy.pointer, tensor, name)
        return copy

    def _copy(self, target: int, tensor: Tensor, name: str) -> None:
        if size := self._value_size(name, tensor.shape):
            cuda.copy_within_device(target, tensor.pointer, size, self._stream)

    def _value_size(self, name: str, shape: Shape) -> int:
        given = self._given.get(name)
        return size_in_bytes(shape, given.dtype) if given else self._plan.size(name, shape)

    def _copy_to_host(self) -> None:
        """Into pinned memory; the pieces go on from there when the stream has come so far."""
        pieces = self._lane.from_gpu.reserve([size for _, _, size in self._to_host])
        for piece, (_, source, size) in zip(pieces, self._to_host, strict=True):
            cuda.copy_to_host(piece, source, size, self._stream)
        self._to_host = [(target, piece, size) for piece, (target, _, size) in zip(pieces, self._to_host, strict=True)]

    def _new(self, shape: Shape, size: int) -> Tensor:
        block = self._memory.take(size)
        self._blocks.append(block)
        return Tensor(block, shape)
