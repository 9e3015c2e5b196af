"""Runs one call at a time, by the fast path if it is like an earlier one, else by the general path."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any

from toolchain.errors import TrtcrossError
from windows_side.engines import cuda
from windows_side.engines.cuda import Stream
from windows_side.launch_lock import LAUNCH_LOCK
from windows_side.session.arrays import NUMPY, Given, Kind
from windows_side.session.direct import DirectCall, direct_call, key_of
from windows_side.session.graphs import Graphs
from windows_side.session.plan import Workspace
from windows_side.session.run import Run

_MOST_DIRECT_CALLS = 64


class Lane:
    """One execution context of each engine, with memory and a stream. Only one thread may use it at a time."""

    def __init__(self, space: Workspace, *, cuda_graphs: bool) -> None:
        self._space = space
        self._graphs = Graphs(space) if cuda_graphs else None
        self._done = cuda.Event()
        self._pending: Stream | None = None  # the stream of the last call, whose work may not have finished
        self._direct: dict[Hashable, DirectCall] = {}

    @property
    def stream(self) -> Stream:
        """The stream on which the lane works, unless the caller's library has a current one."""
        return self._space.stream

    def direct(self, leaves: Sequence[Any]) -> list[Any] | None:
        """Runs a call that is like an earlier one by the fast path.

        Args:
            leaves: the leaves of the call as the caller has passed them.

        Returns:
            The outputs, or None where the call needs the general path.

        Raises:
            IncompatibleError: memory is short, or the GPU failed.
        """
        try:
            way = self._direct.get(key_of(leaves))
        except TypeError:  # a shape that cannot be hashed
            return None
        addresses = way.addresses(leaves) if way is not None else None
        if way is None or addresses is None or (self._space.named and way.kind.stream() not in (None, self.stream)):
            return None
        results = way.results(addresses)
        if results is None:
            return None
        stream = self._begin(way.kind)
        if self._graphs is None:
            with LAUNCH_LOCK.launching:
                way.enqueue(stream, addresses)
        elif not self._graphs.launch(way, addresses, stream):
            return None
        self._end(way.kind, stream)
        return way.outputs(leaves, results)

    def call(self, arguments: Sequence[Any], leaves: Sequence[Given | None]) -> list[Any]:
        """Runs the program by the general path, and returns when its results are computed.

        With a stream of the caller's, and with torch's tensors on the GPU, it returns when all work is enqueued.

        Args:
            arguments: the leaves of the call as the caller has passed them.
            leaves: what :func:`.arrays.read` returned for each of them; None where the input is not a tensor. Outputs
                are of the kind of the first tensor.

        Raises:
            UsageError: an input that the model changes cannot be written to.
            IncompatibleError: memory is short, or the GPU failed.
        """
        kind = next((leaf.kind for leaf in leaves if leaf is not None), NUMPY)
        stream = self._begin(kind)
        run = Run(self._space, leaves, kind, stream)
        try:
            if self._graphs is None:
                with LAUNCH_LOCK.launching:
                    outputs = run.outputs()
            else:
                outputs = run.outputs(self._graphs.captured(leaves, kind, stream))
            self._end(kind, stream, wait=run.reads_host)
        except BaseException:
            run.abandon()
            raise
        run.finish()
        if self._space.named and kind.stream() not in (None, stream):
            for leaf in leaves:
                if leaf is not None:
                    leaf.kind.keep_for(leaf.keeps, stream)
            for output in outputs:
                kind.keep_for(output, stream)
        if self._space.plan.casts_outputs:
            return self._cast(outputs, kind, stream)
        if kind.on_gpu:
            self._learn(arguments, leaves, kind, run)
        return outputs

    def _cast(self, outputs: list[Any], kind: Kind, stream: Stream) -> list[Any]:
        """Returns the outputs in the original model's dtypes, cast by the caller's library."""
        if self._space.named:
            cuda.synchronize(stream)  # the library casts on a stream of its own
        specs = self._space.plan.program.outputs
        return [kind.cast(value, spec.cast) if spec.cast else value for value, spec in zip(outputs, specs, strict=True)]

    def _learn(self, arguments: Sequence[Any], leaves: Sequence[Given | None], kind: Kind, run: Run) -> None:
        """Keeps a fast path for calls like this one, if there is one."""
        key = key_of(arguments)
        if key in self._direct:
            return
        shapes = {name: tensor.shape for name, tensor in run.tensors.items()}
        way = direct_call(self._space, kind, arguments, leaves, shapes, run.sizes)
        if way is None or way.addresses(arguments) is None:
            return
        if len(self._direct) == _MOST_DIRECT_CALLS:
            self._direct.clear()
        self._direct[key] = way

    def _begin(self, kind: Kind) -> Stream:
        """Returns the stream for a call, ordered after the last call and what the caller's library has enqueued."""
        current = kind.stream()
        # On the default stream TensorRT would wait for the whole GPU.
        stream = self.stream if self._space.named or not current else current
        if self._pending is not None and self._pending != stream:
            self._done.record(self._pending)
            self._done.hold_up(stream)
        if current is not None and current != stream:
            self._done.record(current)
            self._done.hold_up(stream)
        self._pending = stream
        return stream

    def _end(self, kind: Kind, stream: Stream, *, wait: bool = False) -> None:
        """Waits for a call's work, or makes the caller's stream wait for it."""
        current = kind.stream()
        if wait or not kind.on_gpu or (current is None and not self._space.named):
            cuda.synchronize(stream)
            self._pending = None
        elif self._space.named:
            self._done.record(stream)  # close() waits for this event: the caller's stream may be gone by then
        elif current != stream:
            self._done.record(stream)
            self._done.hold_up(current or 0)

    def close(self) -> None:
        """Waits for the last call, and frees everything but arrays that the caller has."""
        if self._pending is not None:
            with suppress(TrtcrossError):  # the GPU has failed; everything is released nevertheless
                self._done.synchronize() if self._space.named else cuda.synchronize(self._pending)
        if self._graphs:
            self._graphs.close()
        self._direct.clear()
        self._space.close()
        self._done.close()
        if not self._space.named:
            cuda.destroy_stream(self.stream)
