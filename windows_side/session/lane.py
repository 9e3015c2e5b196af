"""One call at a time: inputs to the GPU, the program's steps, outputs back, state brought up to date."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from toolchain.errors import TrtcrossError
from toolchain.manifest.models import ValueSpec
from windows_side.calling.input_rules import wrong_input
from windows_side.execution.launch_lock import LAUNCH_LOCK
from windows_side.session import cuda
from windows_side.session.arrays import NUMPY, DeviceArrays, Given, Kind
from windows_side.session.cuda import Gpu, Stream
from windows_side.session.device_array import DeviceArray
from windows_side.session.direct import DirectCall, DirectLeaf, DirectResult, key_of
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.engine import EngineContext, Shape
from windows_side.session.memory import DeviceMemory, PinnedMemory
from windows_side.session.program import ArithmeticStep, EngineStep, Output, Program, SizeStep

_ALIGNMENT = 256  # of what TensorRT reads and writes
_MOST_WAYS = 64


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
        self._pending: Stream | None = None  # whose work for the last call may not be done
        self._direct: dict[Hashable, DirectCall] = {}

    def direct(self, leaves: Sequence[Any]) -> list[Any] | None:
        """Runs a call that is like an earlier one, the shortest way.

        Args:
            leaves: as the caller has passed them.

        Returns:
            The outputs, or None where the call must go the long way.

        Raises:
            IncompatibleError: memory is short, or the GPU failed.
        """
        try:
            way = self._direct.get(key_of(leaves))
        except TypeError:  # a shape that is no tuple
            return None
        addresses = way.addresses(leaves) if way is not None else None
        if way is None or addresses is None or (self.named and way.kind.stream() not in (None, self.stream)):
            return None
        results = way.results(addresses)
        if results is None:
            return None
        stream = self._begin(way.kind)
        with LAUNCH_LOCK.launching:
            way.enqueue(stream, addresses)
        self._end(way.kind, stream)
        return way.outputs(leaves, results)

    def call(self, arguments: Sequence[Any], leaves: Sequence[Given | None]) -> list[Any]:
        """Runs the program; returns when its results are there.

        With a stream of the caller's, and with torch's tensors on the GPU, it returns when all is enqueued.

        Args:
            arguments: the leaves of the call as the caller has passed them.
            leaves: what was read of them, None where the input is no tensor. Outputs are of the kind of the first that
                is one.

        Raises:
            UsageError: an input that the model changes cannot be written to.
            IncompatibleError: memory is short, or the GPU failed.
        """
        kind = next((leaf.kind for leaf in leaves if leaf is not None), NUMPY)
        stream = self._begin(kind)
        run = _Run(self, leaves, kind, stream)
        try:
            outputs = run.outputs()
            self._end(kind, stream, wait=run.reads_host)
        except BaseException:
            run.abandon()
            raise
        run.finish()
        if self.named and kind.stream() not in (None, stream):
            for leaf in leaves:
                if leaf is not None:
                    leaf.kind.keep_for(leaf.keeps, stream)
            for output in outputs:
                kind.keep_for(output, stream)
        elif kind.on_gpu:
            self._learn(arguments, run)
        return outputs

    def _learn(self, arguments: Sequence[Any], run: _Run) -> None:
        """Keeps what a call has found, if later ones may go a shorter way."""
        key = key_of(arguments)
        if key in self._direct or (way := run.direct(arguments)) is None or way.addresses(arguments) is None:
            return
        if len(self._direct) == _MOST_WAYS:
            self._direct.clear()
        self._direct[key] = way

    def _begin(self, kind: Kind) -> Stream:
        """The stream for a call, ordered behind the last call and what the caller's library has enqueued."""
        current = kind.stream()
        # On the default stream TensorRT would wait for the whole GPU.
        stream = self.stream if self.named or not current else current
        if self._pending is not None and self._pending != stream:
            self._done.record(self._pending)
            self._done.hold_up(stream)
        if current is not None and current != stream:
            self._done.record(current)
            self._done.hold_up(stream)
        self._pending = stream
        return stream

    def _end(self, kind: Kind, stream: Stream, *, wait: bool = False) -> None:
        """Waits for a call's work, or lets the caller's stream wait for it."""
        current = kind.stream()
        if wait or not kind.on_gpu or (current is None and not self.named):
            cuda.synchronize(stream)
            self._pending = None
        elif self.named:
            self._done.record(stream)  # by the end of the session the caller's stream may be gone
        elif current != stream:
            self._done.record(stream)
            self._done.hold_up(current or 0)

    def close(self) -> None:
        """Waits for the last call, and frees everything but arrays that the caller has."""
        if self._pending is not None:
            self._done.synchronize() if self.named else cuda.synchronize(self._pending)
        self._direct.clear()
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

    def direct(self, arguments: Sequence[Any]) -> DirectCall | None:
        """How calls like this one go the shortest way; None where there is none.

        There is one where the one engine has read the caller's arrays, all of one kind, and has written the results,
        and nothing else was copied. All that depends on sizes alone is a constant then.
        """
        engines = [step for step in self._program.steps if isinstance(step, EngineStep)]
        if len(engines) != 1 or self._program.input_updates or self._blocks:
            return None
        for target, name in self._program.state_updates:
            if self._tensors[name].pointer != self._lane.state[target].pointer:
                return None
        [step] = engines
        context = self._lane.contexts[step.engine]
        bindings = [*step.inputs, *step.outputs]
        leaves = [self._direct_leaf(index, value, bindings) for index, value in enumerate(arguments)]
        results = [name for name in step.outputs if name in self._results]
        outputs = [self._direct_output(output, results) for output in self._program.outputs]
        if not all(leaves) or not all(outputs):
            return None
        as_written = [output.name for output in self._program.outputs] == results
        return DirectCall(
            self._kind, self._lane.gpu.index, context, [self._tensors[name].shape for name in step.inputs],
            [leaf for leaf in leaves if leaf],
            [self._direct_result(name, bindings.index(name)) for name in results],
            None if as_written else [output for output in outputs if output],
        )  # fmt: skip

    def _direct_leaf(self, index: int, value: Any, bindings: Sequence[str]) -> DirectLeaf | None:
        leaf, name = self._leaves[index], self._program.inputs[index]
        if leaf is None or name is None:
            return DirectLeaf(None, value, ()) if leaf is None else None
        if leaf.kind is not self._kind or leaf.dtype.startswith("complex"):
            return None
        places = tuple(place for place, other in enumerate(bindings) if other == name)
        return DirectLeaf(self._kind.dtype(leaf.dtype), None, places)

    def _direct_result(self, name: str, binding: int) -> DirectResult:
        shape, dtype = self._tensors[name].shape, self._plan.dtypes[name]
        if isinstance(self._kind, DeviceArrays):
            make: Callable[[], Any] = partial(DeviceArray, self._memory, self._lane.gpu, shape, dtype, None)
        else:
            make = self._kind.maker(shape, dtype)
        return DirectResult(make, self._kind.dtype(dtype), binding)

    def _direct_output(
        self, output: Output, results: Sequence[str]
    ) -> Callable[[Sequence[Any], list[Any]], Any] | None:
        name = output.name
        if name is None or name in self._sizes:
            constant = output.constant if name is None else self._sizes[name]
            return lambda leaves, made: constant
        if name in results:
            place = results.index(name)
            return lambda leaves, made: made[place]
        if name in self._given:
            index = self._program.inputs.index(name)
            return lambda leaves, made: leaves[index]
        return None

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
