"""Runs whole programs as CUDA graphs: one launch replays every kernel of a call, with one graph per shape set."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from toolchain.errors import IncompatibleError
from windows_side.execution.capture_check import check_capture, draws_numbers, kept_tensors
from windows_side.execution.capture_stream import capture_stream
from windows_side.execution.flat_program import FlatProgram
from windows_side.execution.no_collection import no_collection
from windows_side.execution.stable_addresses import Places, StableAddresses, places_of
from windows_side.launch_lock import LAUNCH_LOCK

logger = logging.getLogger("trtcross.cuda_graphs")

# Both numbers are limited because each graph keeps its inputs, outputs and intermediate values on the GPU.
MAX_SHAPES = 16
MAX_PLACES = 16
_WARM_UP_CALLS = 3
_ATTEMPTS = 3
_ALIGNMENT = 256

Shapes = tuple[torch.Size, ...]
Addresses = tuple[int, ...]


@dataclass(frozen=True)
class _Static:
    """A graph with inputs and outputs of its own: a caller's inputs are copied in, and the outputs are copied out.

    Attributes:
        shapes: the shapes of the inputs.
        arguments: the leaves of the captured call; its tensors are the graph's own inputs.
        outputs: the graph's own flat outputs; some may be numbers.
    """

    shapes: Shapes
    graph: torch.cuda.CUDAGraph
    arguments: list[Any]
    outputs: list[Any]

    def new_outputs(self) -> list[Any]:
        """Returns flat outputs of the same shapes, whose memory is new and not yet written."""
        return [torch.empty_like(out) if isinstance(out, torch.Tensor) else out for out in self.outputs]


class CapturedProgram:
    """Captures a flat program when it first sees a set of input shapes, and replays the graph from then on.

    Inputs are copied into the graph's own and outputs are copied out, so that a call's outputs do not change with the
    next call. Where the inputs and the memory that torch's allocator gives for the outputs keep the same addresses, an
    in-place graph is captured, which reads and writes there without copies. At most ``MAX_SHAPES`` shape sets and
    ``MAX_PLACES`` in-place graphs are kept; the least recently used is released.

    TensorRT computes some values only when an engine's shapes change, and keeps them in its own memory. A graph may
    read them there, and is then wrong after a call of other shapes. So an earlier graph is replayed before and after
    the next one is captured; if its outputs differ, only one shape set is kept from then on. Two replays of a program
    that draws random numbers differ anyway, so of such a program only one shape set is ever kept.
    """

    def __init__(self, program: FlatProgram, device: torch.device) -> None:
        self._flat = program.module
        self._device = device
        self._stream = capture_stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._static: OrderedDict[Shapes, _Static] = OrderedDict()
        self._in_place: OrderedDict[tuple[Places, Addresses], torch.cuda.CUDAGraph] = OrderedDict()
        self._known: dict[Places, _Static] = {}  # inputs that some graph reads in place
        self._hot = StableAddresses()
        self._state = [program.module.get_buffer(name) for name in program.state]
        self._changed_inputs = program.changed_inputs
        self._draws = draws_numbers(program.module)
        self._keeps_one = self._draws  # whether a graph is, or may be, wrong after a call of other shapes

    def replay_in_place(self, leaves: Sequence[Any]) -> list[Any] | None:
        """Replays the graph that was captured for these very addresses; its inputs need no checks.

        Returns:
            The flat outputs, or None where there is no such graph.
        """
        places = places_of(leaves)
        static = self._known.get(places)
        if static is None:
            return None
        outputs = static.new_outputs()
        key = (places, _addresses(outputs))
        graph = self._in_place.get(key)
        if graph is None:
            return None
        self._in_place.move_to_end(key)
        self._static.move_to_end(static.shapes)
        graph.replay()
        return outputs

    def __call__(self, *leaves: Any) -> list[Any]:
        """Returns the program's flat outputs, in memory that is the caller's own.

        Raises:
            IncompatibleError: the program cannot be captured.
        """
        tensors = _tensors(leaves)
        static = self._static_for(leaves, tensors)
        outputs = static.new_outputs()
        graph = self._capture_if_worth_it(static, leaves, outputs)
        if graph is not None:
            graph.replay()
            return outputs
        inputs = _tensors(static.arguments)
        _copy(tensors, inputs)
        static.graph.replay()
        for index in self._changed_inputs:
            tensors[index].copy_(inputs[index])
        _copy(static.outputs, outputs)
        return outputs

    def _static_for(self, leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> _Static:
        shapes = tuple(tensor.shape for tensor in tensors)
        static = self._static.get(shapes)
        if static is None:
            # Later calls may be outside of inference mode and write to what is made here. Leaving that mode enables
            # gradients, so they are disabled again.
            with torch.inference_mode(False), torch.no_grad():
                arguments = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
                before = self._replay_latest()
                graph, outputs = self._capture_with_retries(arguments)
                self._keeps_one = self._keeps_one or not _equal(before, self._replay_latest())
            static = self._static[shapes] = _Static(shapes, graph, arguments, outputs)
            while len(self._static) > (1 if self._keeps_one else MAX_SHAPES):
                self._release_oldest_shapes()
        self._static.move_to_end(shapes)
        return static

    def _replay_latest(self) -> list[torch.Tensor]:
        """Replays the graph that was used last, and returns copies of its outputs; state and inputs stay."""
        if self._keeps_one or not self._static:
            return []
        latest = next(reversed(self._static.values()))
        with _refused_if_torch_fails(), LAUNCH_LOCK.launching, self._changes_undone(latest.arguments):
            latest.graph.replay()
            return [out.clone() for out in _tensors(latest.outputs)]

    def _capture_with_retries(self, arguments: Sequence[Any]) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
        """Captures, and retries a capture that failed: another thread may have broken it."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._capture_and_check(arguments)
            except IncompatibleError as error:
                logger.info("capturing once more: %s", error)
        return self._capture_and_check(arguments)

    def _capture_and_check(self, arguments: Sequence[Any]) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
        """Captures, and compares a replay with the last call before the capture."""
        graph, outputs, expected = self._capture(arguments, arguments)

        def replay() -> None:
            with self._changes_undone(arguments):
                graph.replay()

        kept = [*_tensors(arguments), *kept_tensors(self._flat)]
        with _refused_if_torch_fails(), LAUNCH_LOCK.launching:  # the comparison launches kernels
            check_capture(replay, outputs, expected, kept=kept, draws=self._draws)
        return graph, outputs

    def _capture_if_worth_it(
        self, static: _Static, leaves: Sequence[Any], outputs: Sequence[Any]
    ) -> torch.cuda.CUDAGraph | None:
        places = places_of(leaves)
        key = (places, _addresses(outputs))
        if not places or not all(map(_may_be_read_in_place, leaves)) or not self._hot.worth_capturing(key):
            return None
        _copy(leaves, static.arguments)
        try:
            graph, *_ = self._capture(leaves, static.arguments, outputs)
        except IncompatibleError as error:  # such as: another thread waited for the GPU; a later capture may succeed
            logger.warning("inputs and outputs are copied for now: %s", error)
            self._hot.failed()
            return None
        self._in_place[key] = graph
        self._known[places] = static
        replaced = len(self._in_place) > MAX_PLACES
        self._hot.captured(key, replaced=replaced)
        if replaced:
            self._release([next(iter(self._in_place))])
        return graph

    def _release_oldest_shapes(self) -> None:
        _, oldest = self._static.popitem(last=False)
        self._release([key for key in self._in_place if self._known[key[0]] is oldest])

    def _release(self, keys: Sequence[tuple[Places, Addresses]]) -> None:
        with LAUNCH_LOCK.capturing():  # CUDA refuses to wait for a whole GPU while any thread captures
            torch.cuda.synchronize(self._device)  # a graph that is released may still be running
        for key in keys:
            del self._in_place[key]
        self._known = {places: self._known[places] for places, _ in self._in_place}

    def _capture(
        self, arguments: Sequence[Any], warm_up: Sequence[Any], outputs: Sequence[Any] | None = None
    ) -> tuple[torch.cuda.CUDAGraph, list[Any], list[Any]]:
        """Returns a graph of a call with ``arguments``, its flat outputs, and those of the last call before it.

        Args:
            warm_up: arguments of the same shapes, with which the program is called before the capture.
            outputs: where the graph writes, or None for memory of its own.

        Raises:
            IncompatibleError: torch or CUDA refused the capture.
        """
        here = torch.cuda.current_stream(self._device)
        try:
            with _refused_if_torch_fails():
                expected = self._warm_up(warm_up, here)
                return *self._capture_alone(arguments, outputs), expected
        finally:
            torch.cuda.set_stream(here)  # torch stays on the capture stream where the capture cannot be ended

    def _warm_up(self, arguments: Sequence[Any], here: torch.cuda.Stream) -> list[Any]:
        """Calls the program, so that kernels are compiled and memory is allocated before the capture.

        Other threads may launch meanwhile.

        Returns:
            The flat outputs of the last call.
        """
        results: list[Any] = []
        self._stream.wait_stream(here)
        try:
            with LAUNCH_LOCK.launching, torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_CALLS):
                    with self._changes_undone(arguments):
                        results = list(self._flat.forward(*arguments))
        finally:
            here.wait_stream(self._stream)
        # Beginning a capture waits for the GPU, and no other thread may launch then: what waits for them must be over.
        self._stream.synchronize()
        return results

    @contextmanager
    def _changes_undone(self, arguments: Sequence[Any]) -> Iterator[None]:
        """Restores state and changed inputs after a call: state may hold where the next call writes."""
        changing = [*self._state, *(_tensors(arguments)[index] for index in self._changed_inputs)]
        before = [tensor.clone() for tensor in changing]
        try:
            yield
        finally:
            _copy(before, changing)

    def _capture_alone(
        self, arguments: Sequence[Any], outputs: Sequence[Any] | None
    ) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
        """Captures while no other thread launches; nothing is computed.

        The mode is ``thread_local``: other threads may allocate meanwhile, which breaks a capture in the global mode.
        """
        graph = torch.cuda.CUDAGraph()
        with (
            LAUNCH_LOCK.capturing(),
            no_collection(),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            results = list(self._flat.forward(*arguments))
            if outputs is not None:
                _copy(results, outputs)
        return graph, results


@contextmanager
def _refused_if_torch_fails() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise IncompatibleError(
            f"this model cannot be captured in a CUDA graph: {error}",
            where="load(cuda_graphs=True)",
            remedy="load it without cuda_graphs",
        ) from error


def _tensors(leaves: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Returns whether tensors have the same bytes, so that NaN equals itself."""
    return all(torch.equal(_bytes(a), _bytes(b)) for a, b in zip(one, other, strict=True))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    return tensor.view(-1).view(torch.uint8)


def _addresses(outputs: Sequence[Any]) -> Addresses:
    return tuple([out.data_ptr() for out in outputs if isinstance(out, torch.Tensor)])


def _copy(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    if tensors := _tensors(targets):
        torch._foreach_copy_(tensors, _tensors(sources))


def _may_be_read_in_place(tensor: torch.Tensor) -> bool:
    """Whether an engine may read a tensor where it is: it must be contiguous and aligned as an allocation is.

    An empty tensor may not: its address is null on every device, and identifies nothing.
    """
    return tensor.numel() > 0 and tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0
