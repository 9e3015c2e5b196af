"""The general path of a call: moves inputs to the GPU, runs the program's steps, returns outputs and updates state."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.errors import TrtcrossError
from toolchain.graph.program import ArithmeticStep, EngineStep, SizeStep, ViewStep
from windows_side.calling.input_rules import wrong_input
from windows_side.engines import cuda
from windows_side.engines.cuda import Stream
from windows_side.engines.engine import Shape
from windows_side.session.arrays import DeviceArrays, Given, Kind
from windows_side.session.device_array import DeviceArray
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.plan import ALIGNMENT, Tensor, Workspace


@dataclass(frozen=True)
class Captured:
    """The program's steps for one set of shapes as a CUDA graph, which works in memory of its own.

    Attributes:
        graph: the graph.
        tensors: the addresses and shapes of values, inputs and outputs included, by name.
        sizes: the whole numbers that the steps compute, by name.
        blocks: the graph's memory.
        addresses: the addresses of the only engine's bindings; empty where there are several engines.
    """

    graph: cuda.Graph
    tensors: dict[str, Tensor]
    sizes: dict[str, int]
    blocks: list[int]
    addresses: list[int]


class Run:
    """One call, and its values.

    Attributes:
        tensors: the addresses and shapes of values, by name.
        sizes: the whole numbers that the steps compute, by name.
        blocks: the blocks of the lane's memory that the call has taken.
        reads_host: whether an input is on the host.
    """

    def __init__(self, space: Workspace, leaves: Sequence[Given | None], kind: Kind, stream: Stream) -> None:
        self._space = space
        self._plan, self._program, self._memory = space.plan, space.plan.program, space.memory
        self._leaves = leaves
        self._kind = kind
        self._stream = stream
        self.tensors: dict[str, Tensor] = dict(space.state)
        self.sizes: dict[str, int] = {}
        self._given: dict[str, Given] = {}
        self._results: dict[str, Any] = {}
        self.blocks: list[int] = []
        self._to_host: list[tuple[int, int, int]] = []  # target, source, size
        self.reads_host = False

    def outputs(self, captured: Captured | None = None) -> list[Any]:
        """Enqueues the whole call, and returns its outputs; arrays on the host are filled by :meth:`finish`.

        Args:
            captured: the steps as a graph for these shapes, which is launched instead.

        Raises:
            UsageError: an input that the model changes cannot be written to.
            IncompatibleError: memory is short, or the GPU failed.
        """
        program = self._program
        if program.input_updates:
            self._require_writable()
        if captured is None:
            self.read_inputs()
            self.run_steps()
        else:
            self.read_inputs(captured.tensors)
            captured.graph.launch(self._stream)
            self.tensors.update(captured.tensors)
            self.sizes.update(captured.sizes)
        results = [output.constant if output.name is None else self._result(output.name) for output in program.outputs]
        if program.state_updates or program.input_updates:
            self._update()
        if self._to_host:
            self._copy_to_host()
        return results

    def run_steps(self) -> None:
        """Enqueues the engines, after :meth:`read_inputs`."""
        wanted = self._plan.results if self._kind.on_gpu else frozenset()
        for step in self._program.steps:
            if isinstance(step, EngineStep):
                self._run_engine(step, wanted)
            elif isinstance(step, SizeStep):
                self.sizes[step.output] = self.tensors[step.tensor].shape[step.dim]
            elif isinstance(step, ViewStep):
                self.tensors[step.output] = self._view(step)
            elif isinstance(step, ArithmeticStep):
                self.sizes[step.output] = self._computed(step)

    def finish(self) -> None:
        """Fills the outputs that are on the host; the stream's work must have finished."""
        for target, source, size in self._to_host:
            ctypes.memmove(target, source, size)
        self.give_back()

    def abandon(self) -> None:
        """Ends a call that failed: waits for the GPU, and then gives the memory back."""
        try:
            cuda.synchronize(self._stream)
        except TrtcrossError:
            return  # the caller reports the first error
        self.give_back()

    def give_back(self) -> None:
        """Makes the memory that this call has taken available to later calls."""
        for block in self.blocks:
            self._memory.give_back(block)

    def _require_writable(self) -> None:
        for index, _ in self._program.input_updates:
            leaf = self._leaves[index]
            if leaf is not None and (leaf.read_only or leaf.copied):
                words = "read-only" if leaf.read_only else "not in C order"
                raise wrong_input(self._plan.inputs[index], f"is {words}, and the model changes it in place")

    def read_inputs(self, targets: Mapping[str, Tensor] | None = None) -> None:
        """Enqueues the copies of the inputs to where the engines read them.

        Args:
            targets: where the engines read them. None means the caller's memory if it is on the GPU and aligned, else
                memory of the call's own.
        """
        host: list[tuple[str, Given, int]] = []
        for index, name in self._plan.names:
            leaf = self._leaves[index]
            if leaf is None:
                continue
            self._given[name] = leaf
            if leaf.gpu is None:
                host.append((name, leaf, size_in_bytes(leaf.shape, leaf.dtype)))
            else:
                self.tensors[name] = self._on_gpu(leaf, targets[name] if targets else None)
        if host:
            self.reads_host = True
            pieces = self._space.to_gpu.reserve([size for _, _, size in host])
            for piece, (name, leaf, size) in zip(pieces, host, strict=True):
                ctypes.memmove(piece, leaf.pointer, size)
                tensor = self.tensors[name] = targets[name] if targets else self._new(leaf.shape, size)
                cuda.copy_to_device(tensor.pointer, piece, size, self._stream)

    def _on_gpu(self, leaf: Given, target: Tensor | None) -> Tensor:
        made_on = leaf.stream
        if made_on is None and leaf.kind is not self._kind and not self._space.named:
            made_on = leaf.kind.stream()
        self._follow(made_on)
        if target is None and leaf.pointer and not leaf.pointer % ALIGNMENT:
            return Tensor(leaf.pointer, leaf.shape)
        size = size_in_bytes(leaf.shape, leaf.dtype)
        tensor = target or self._new(leaf.shape, size)
        if size:
            cuda.copy_within_device(tensor.pointer, leaf.pointer, size, self._stream)
        return tensor

    def _run_engine(self, step: EngineStep, wanted: frozenset[str]) -> None:
        inputs = [self.tensors[name] for name in step.inputs]

        def place(index: int, shape: Shape) -> int:
            name = step.outputs[index]
            if name in wanted:
                array, pointer = self._new_result(name, shape)
                if pointer and not pointer % ALIGNMENT:
                    self._results[name] = array
                    return pointer
            return self._new(shape, self._plan.size(name, shape)).pointer

        context = self._space.contexts[step.engine]
        found = context.run(self._stream, [t.shape for t in inputs], [t.pointer for t in inputs], place)
        for name, (pointer, shape) in zip(step.outputs, found, strict=True):
            self.tensors[name] = Tensor(pointer, shape)

    def _computed(self, step: ArithmeticStep) -> int:
        return step.function(*map(self._number, step.operands))

    def _view(self, step: ViewStep) -> Tensor:
        tensor = self.tensors[step.tensor]
        operands = [
            tuple(map(self._number, operand)) if isinstance(operand, tuple) else self._number(operand)
            for operand in step.operands
        ]
        return Tensor(tensor.pointer, step.new_shape(tensor.shape, *operands))

    def _number(self, operand: Any) -> Any:
        return self.sizes[operand] if isinstance(operand, str) else operand

    def _result(self, name: str) -> Any:
        """Returns an output: the array that an engine wrote, a number, the caller's own input, or a copy."""
        if name in self.sizes:
            return self.sizes[name]
        if name in self._results:
            return self._results[name]
        if name in self._given and name in self._program.inputs:
            return self._given[name].array
        tensor, size = self.tensors[name], self._plan.size(name, self.tensors[name].shape)
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
                self._memory,
                self._space.gpu,
                shape,
                self._plan.dtypes[name],
                self._stream if self._space.named else None,
            )
            return self._kind.finished(array), array.pointer
        made = self._kind.empty(shape, self._plan.dtypes[name])
        # The library reuses memory in the order of its own stream, where earlier work may still use this block.
        self._follow(self._kind.stream())
        return made

    def _follow(self, other: Stream | None) -> None:
        """Makes work that is enqueued from now on wait for what is on another stream now."""
        if other is None or other == self._stream:
            return
        ready = cuda.Event()
        ready.record(other)
        ready.hold_up(self._stream)
        ready.close()

    def _update(self) -> None:
        """Writes new values into state and inputs. Values that such a write would change are copied first."""
        persistent = {tensor.pointer for tensor in self._space.state.values()}
        persistent |= {self.tensors[name].pointer for name in self._given}
        sources = {name for _, name in (*self._program.state_updates, *self._program.input_updates)}
        values = {name: self._kept(self.tensors[name], name, persistent) for name in sources}
        for target, name in self._program.state_updates:
            own = self._space.state[target]
            # An engine whose output shares the state's memory has written it already.
            if self.tensors[name].pointer != own.pointer:
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
        source = self._plan.viewed.get(name, name)
        if tensor.pointer not in persistent or source not in (*self._space.state, *self._given):
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
        """Enqueues copies into pinned memory; :meth:`finish` copies from there into the caller's arrays."""
        pieces = self._space.from_gpu.reserve([size for _, _, size in self._to_host])
        for piece, (_, source, size) in zip(pieces, self._to_host, strict=True):
            cuda.copy_to_host(piece, source, size, self._stream)
        self._to_host = [(target, piece, size) for piece, (target, _, size) in zip(pieces, self._to_host, strict=True)]

    def _new(self, shape: Shape, size: int) -> Tensor:
        block = self._memory.take(size)
        self.blocks.append(block)
        return Tensor(block, shape)
