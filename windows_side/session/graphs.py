"""A lane's CUDA graphs: one launch replays every kernel of a call, with one graph per shape set.

The first graph of a shape set has inputs and outputs of its own: a caller's arrays are copied in and out. Where a
call's arrays and results keep the same addresses, a further graph is captured that works in place.
"""

from __future__ import annotations

import ctypes
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from toolchain.errors import IncompatibleError
from windows_side.engines import cuda
from windows_side.engines.cuda import Graph, OutOfMemoryError, Stream
from windows_side.engines.engine import Shape
from windows_side.execution.no_collection import no_collection
from windows_side.execution.stable_addresses import StableAddresses
from windows_side.launch_lock import LAUNCH_LOCK
from windows_side.session.arrays import NUMPY, Given, Kind
from windows_side.session.direct import Addresses, DirectCall
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.plan import Tensor, Workspace
from windows_side.session.run import Captured, Run

logger = logging.getLogger("trtcross.cuda_graphs")

# The same numbers as in `execution.cuda_graphs`.
MAX_SHAPES = 16
MAX_PLACES = 16
_WARM_UP_CALLS = 3
_ATTEMPTS = 3

Sizes = tuple[Shape, ...]
_Place = tuple[Sizes, tuple[int, ...]]


class Graphs:
    """The graphs of one lane.

    At most ``MAX_SHAPES`` shape sets and ``MAX_PLACES`` in-place graphs are kept; the least recently used is released.
    Only one shape set is kept where a graph is wrong after a call of other shapes, as in
    :class:`windows_side.execution.cuda_graphs.CapturedProgram`.
    """

    def __init__(self, space: Workspace) -> None:
        self._space = space
        self._stream = cuda.create_stream()  # its own, because whatever is launched on it becomes part of a graph
        self._ready = cuda.Event()
        self._own: OrderedDict[Sizes, Captured] = OrderedDict()
        self._in_place: OrderedDict[_Place, Graph] = OrderedDict()
        self._hot = StableAddresses()
        self._keeps_one = False  # whether a graph is wrong after a call of other shapes

    def captured(self, leaves: Sequence[Given | None], kind: Kind, stream: Stream) -> Captured:
        """Returns the graph for the shapes of a call, and captures it if there is none.

        Args:
            leaves: the call's leaves.
            kind: the kind of the call's arrays.
            stream: the call's stream.

        Raises:
            IncompatibleError: the program cannot be captured, or memory is short.
        """
        sizes = tuple(leaf.shape if leaf else () for leaf in leaves)
        found = self._own.get(sizes)
        if found is None:
            before = self._replay_latest(stream)
            found = self._capture_with_retries(leaves, kind, stream)
            self._keeps_one = self._keeps_one or self._replay_latest(stream) != before
            self._own[sizes] = found
            while len(self._own) > (1 if self._keeps_one else MAX_SHAPES):
                self._release_oldest(stream)
        self._own.move_to_end(sizes)
        return found

    def launch(self, way: DirectCall, addresses: Addresses, stream: Stream) -> bool:
        """Enqueues a call of the fast path, as an in-place graph or with copies.

        Returns:
            Whether there was a graph for its shapes.

        Raises:
            IncompatibleError: memory is short, or the GPU failed.
        """
        own = self._own.get(way.sizes)
        if own is None:
            return False
        place = way.sizes, tuple(addresses)
        graph = self._in_place.get(place) or self._capture_if_worth_it(way, own, place, stream)
        self._own.move_to_end(way.sizes)
        if graph is not None:
            self._in_place.move_to_end(place)
            graph.launch(stream)
            return True
        for binding, size in way.reads:
            cuda.copy_within_device(own.addresses[binding], addresses[binding], size, stream)
        own.graph.launch(stream)
        for binding, size in way.writes:
            cuda.copy_within_device(addresses[binding], own.addresses[binding], size, stream)
        return True

    def close(self) -> None:
        """Frees all graphs; none of them may be running."""
        for graph in (*self._in_place.values(), *(own.graph for own in self._own.values())):
            graph.close()
        for own in self._own.values():
            self._give_back(own.blocks)
        self._in_place.clear()
        self._own.clear()
        self._ready.close()
        cuda.destroy_stream(self._stream)

    def _replay_latest(self, stream: Stream) -> list[bytes]:
        """Replays the graph that was used last, and returns the bytes of its outputs; the state stays as it is."""
        if self._keeps_one or not self._own:
            return []
        latest = next(reversed(self._own.values()))
        self._follow(stream)
        with self._state_kept(), LAUNCH_LOCK.launching:
            latest.graph.launch(self._stream)
            names = [output.name for output in self._space.plan.program.outputs if output.name in latest.tensors]
            return [self._downloaded(name, latest.tensors[name]) for name in names]

    def _downloaded(self, name: str, tensor: Tensor) -> bytes:
        host = bytearray(self._space.plan.size(name, tensor.shape))
        if host:
            pointer = ctypes.addressof(ctypes.c_char.from_buffer(host))
            cuda.copy_to_host(pointer, tensor.pointer, len(host), self._stream)
            cuda.synchronize(self._stream)
        return bytes(host)

    def _capture_with_retries(self, leaves: Sequence[Given | None], kind: Kind, stream: Stream) -> Captured:
        """Captures, and retries a capture that failed: another thread may have broken it."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._capture(leaves, kind, stream)
            except _NotCapturedError as error:
                logger.info("capturing once more: %s", error)
        return self._capture(leaves, kind, stream)

    def _capture(self, leaves: Sequence[Given | None], kind: Kind, stream: Stream) -> Captured:
        inputs: dict[str, Tensor] = {}
        try:
            for index, name in self._space.plan.names:
                if (leaf := leaves[index]) is not None:
                    block = self._space.memory.take(size_in_bytes(leaf.shape, leaf.dtype))
                    inputs[name] = Tensor(block, leaf.shape)
            for _ in range(_WARM_UP_CALLS):
                Run(self._space, leaves, kind, stream).read_inputs(
                    inputs
                )  # each time, because an engine may change them
                self._warm_up(self._run_on(inputs, leaves), stream)
            run = self._run_on(inputs, leaves)
            try:
                graph = self._graph_of(run.run_steps)
            except BaseException:
                run.give_back()  # a capture runs nothing that could still use it
                raise
        except BaseException:
            self._give_back([tensor.pointer for tensor in inputs.values()])
            raise
        step = self._space.plan.only_engine
        addresses = list(self._space.contexts[step.engine].addresses) if step else []
        blocks = [*(tensor.pointer for tensor in inputs.values()), *run.blocks]
        return Captured(graph, run.tensors, run.sizes, blocks, addresses)

    def _run_on(self, inputs: dict[str, Tensor], leaves: Sequence[Given | None]) -> Run:
        """Returns a run whose inputs are in a graph's memory, and whose outputs are in the lane's."""
        gpu = self._space.gpu.index
        given: list[Given | None] = [None] * len(leaves)
        for index, name in self._space.plan.names:
            if (leaf := leaves[index]) is not None:
                given[index] = Given(None, leaf.shape, leaf.dtype, inputs[name].pointer, gpu, NUMPY)
        run = Run(self._space, given, NUMPY, self._stream)
        run.read_inputs()
        return run

    def _warm_up(self, run: Run, stream: Stream) -> None:
        """Runs the steps, so that kernels are compiled, and the memory is allocated that the capture then reuses."""
        self._follow(stream)
        try:
            with self._state_kept(), LAUNCH_LOCK.launching:
                run.run_steps()
        finally:
            run.abandon()  # waits for the steps

    def _capture_if_worth_it(self, way: DirectCall, own: Captured, place: _Place, stream: Stream) -> Graph | None:
        if not self._hot.worth_capturing(place):
            return None
        self._follow(stream)
        try:
            with self._state_kept(), LAUNCH_LOCK.launching:
                way.enqueue(self._stream, own.addresses)  # TensorRT must have run these sizes before
            cuda.synchronize(self._stream)
            graph = self._graph_of(lambda: way.enqueue(self._stream, list(place[1])))
        except _NotCapturedError as error:  # such as: another thread waited for the GPU; a later capture may succeed
            logger.warning("inputs and outputs are copied for now: %s", error)
            self._hot.failed()
            return None
        self._in_place[place] = graph
        replaced = len(self._in_place) > MAX_PLACES
        self._hot.captured(place, replaced=replaced)
        if replaced:
            self._release(next(iter(self._in_place)), stream)
        return graph

    def _graph_of(self, enqueue: Callable[[], None]) -> Graph:
        """Captures what ``enqueue`` puts on the lane's capture stream.

        Raises:
            OutOfMemoryError: memory is short.
            _NotCapturedError: the capture failed for another reason.
        """
        with LAUNCH_LOCK.capturing(), no_collection():
            try:
                return Graph(self._stream, enqueue)
            except OutOfMemoryError:
                raise
            except IncompatibleError as error:
                raise _NotCapturedError(
                    f"this model cannot be captured in a CUDA graph: {error.problem}",
                    where="Session(cuda_graphs=True)",
                    remedy="make the session without cuda_graphs",
                ) from error

    def _follow(self, stream: Stream) -> None:
        self._ready.record(stream)
        self._ready.hold_up(self._stream)

    @contextmanager
    def _state_kept(self) -> Iterator[None]:
        """Restores the state after the block, which warms up a graph: state may hold where the next call writes."""
        program, memory = self._space.plan.program, self._space.memory
        sizes = {name: self._space.plan.size(name, self._space.state[name].shape) for name, _ in program.state_updates}
        kept = {name: memory.take(size) for name, size in sizes.items()}
        for name, block in kept.items():
            cuda.copy_within_device(block, self._space.state[name].pointer, sizes[name], self._stream)
        try:
            yield
        finally:
            for name, block in kept.items():
                cuda.copy_within_device(self._space.state[name].pointer, block, sizes[name], self._stream)
                memory.give_back(block)  # whoever takes it next works after this stream

    def _release_oldest(self, stream: Stream) -> None:
        sizes, oldest = self._own.popitem(last=False)
        for place in [place for place in self._in_place if place[0] == sizes]:
            self._release(place, stream)
        cuda.synchronize(stream)
        oldest.graph.close()
        self._give_back(oldest.blocks)

    def _release(self, place: _Place, stream: Stream) -> None:
        cuda.synchronize(stream)  # the graph may still be running
        self._in_place.pop(place).close()

    def _give_back(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._space.memory.give_back(block)


class _NotCapturedError(IncompatibleError):
    """A capture failed; a later one may succeed."""
