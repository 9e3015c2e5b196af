"""The functions of the CUDA runtime that a session needs, which raise our errors instead of returning codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from toolchain.errors import IncompatibleError, MissingComponentError, TrtcrossError, UsageError

try:
    from cuda.bindings import runtime as _cuda
except ImportError as error:
    raise MissingComponentError(
        f"CUDA's Python bindings cannot be imported: {error}",
        where="this Python environment",
        remedy="python -m pip install cuda-bindings",
    ) from error

# The handle of a CUDA stream.
Stream = int

_SUCCESS = _cuda.cudaError_t.cudaSuccess
_NO_GPU = (
    _cuda.cudaError_t.cudaErrorNoDevice,
    _cuda.cudaError_t.cudaErrorInsufficientDriver,
    _cuda.cudaError_t.cudaErrorInitializationError,
)
_TO_DEVICE = _cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = _cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
_WITHIN_DEVICE = _cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice


class OutOfMemoryError(IncompatibleError):
    """The GPU or the host has too little memory left."""


class Gpu:
    """One GPU of this machine.

    Attributes:
        index: the GPU's index, as CUDA counts.
        is_only: whether the machine has no other GPU, so that this one is current in every thread.

    Raises:
        UsageError: there is no GPU of that index.
        IncompatibleError: there is no GPU, or no driver for it.
    """

    def __init__(self, index: int) -> None:
        count = int(_checked(_cuda.cudaGetDeviceCount()))
        if not 0 <= index < count:
            raise UsageError(
                f"there is no GPU 'cuda:{index}' here",
                where="device",
                remedy=f"engines run on cuda:0 to cuda:{count - 1}",
            )
        self.index = index
        self.is_only = count == 1

    def __str__(self) -> str:
        return f"cuda:{self.index}"

    @cached_property
    def name(self) -> str:
        """The GPU's name, as torch and NVML report it."""
        return bytes(self._properties.name).partition(b"\0")[0].decode()

    @cached_property
    def capability(self) -> tuple[int, int]:
        """The GPU's compute capability, major and minor."""
        return int(self._properties.major), int(self._properties.minor)

    @cached_property
    def _properties(self) -> Any:
        return _checked(_cuda.cudaGetDeviceProperties(self.index))

    def make_current(self) -> int:
        """Makes this GPU the thread's current one.

        Returns:
            The index of the GPU that was current before.
        """
        before = int(_checked(_cuda.cudaGetDevice()))
        if before != self.index:
            _checked(_cuda.cudaSetDevice(self.index))
        return before

    def put_back(self, before: int) -> None:
        """Restores the GPU that :meth:`make_current` returned."""
        if before != self.index:
            _cuda.cudaSetDevice(before)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes this GPU the thread's current one within a block.

        The GPU before is restored even if TensorRT has changed the current one meanwhile.
        """
        before = self.make_current()
        try:
            yield
        finally:
            if _cuda.cudaGetDevice()[1] != before:
                _cuda.cudaSetDevice(before)

    def start(self) -> None:
        """Creates the GPU's context, which takes a fifth of a second the first time."""
        _checked(_cuda.cudaSetDevice(self.index))
        _checked(_cuda.cudaFree(0))


class Event:
    """A point in a stream's work."""

    def __init__(self) -> None:
        self._event = _checked(_cuda.cudaEventCreateWithFlags(_cuda.cudaEventDisableTiming))

    def record(self, stream: Stream) -> None:
        _checked(_cuda.cudaEventRecord(self._event, stream))

    def hold_up(self, stream: Stream) -> None:
        """Makes work that is enqueued on ``stream`` from now on wait for this point."""
        _checked(_cuda.cudaStreamWaitEvent(stream, self._event, 0))

    def synchronize(self) -> None:
        _checked(_cuda.cudaEventSynchronize(self._event))

    def close(self) -> None:
        _cuda.cudaEventDestroy(self._event)


class Graph:
    """Work of a stream, captured as a CUDA graph."""

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Captures what ``enqueue`` puts on ``stream``; none of it is run.

        Raises:
            IncompatibleError: the work cannot be captured, or another thread has broken the capture.
        """
        # Other threads may allocate meanwhile, which breaks a capture in the global mode.
        _checked(_cuda.cudaStreamBeginCapture(stream, _cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            enqueue()
        except BaseException:
            code, graph = _cuda.cudaStreamEndCapture(stream)
            if code == _SUCCESS:
                _cuda.cudaGraphDestroy(graph)
            raise
        graph = _checked(_cuda.cudaStreamEndCapture(stream))
        try:
            self._graph = _checked(_cuda.cudaGraphInstantiate(graph, 0))
        finally:
            _cuda.cudaGraphDestroy(graph)

    def launch(self, stream: Stream) -> None:
        _checked(_cuda.cudaGraphLaunch(self._graph, stream))

    def close(self) -> None:
        """Frees the graph, which must not be running."""
        with suppress(TypeError):  # the interpreter is about to end
            _cuda.cudaGraphExecDestroy(self._graph)


def create_stream() -> Stream:
    """Creates a stream that does not wait for the legacy default stream."""
    return int(_checked(_cuda.cudaStreamCreateWithFlags(_cuda.cudaStreamNonBlocking)))


def destroy_stream(stream: Stream) -> None:
    """Releases a stream of :func:`create_stream`."""
    _cuda.cudaStreamDestroy(stream)


def synchronize(stream: Stream) -> None:
    """Waits for all work of a stream.

    Raises:
        TrtcrossError: some of it failed.
    """
    _checked(_cuda.cudaStreamSynchronize(stream))


def synchronize_device() -> None:
    """Waits for all work of the current GPU."""
    _checked(_cuda.cudaDeviceSynchronize())


def allocate(size: int) -> int:
    """Allocates ``size`` bytes of the current GPU's memory, and returns their address.

    Raises:
        OutOfMemoryError: the GPU has too little memory left.
    """
    return int(_checked(_cuda.cudaMalloc(size)))


def free_memory() -> int:
    """Returns the bytes that are free on the current GPU."""
    return int(_checked(_cuda.cudaMemGetInfo()))


def require_free(size: int, what: str) -> None:
    """Checks that the current GPU has ``size`` bytes left.

    Args:
        what: what needs the memory, for the error.

    Raises:
        OutOfMemoryError: the GPU has less left.
    """
    left = free_memory()
    if left < size:
        raise OutOfMemoryError(
            f"the GPU has {left >> 20} MiB left, and {what} needs {-(-size >> 20)}",
            where="CUDA",
            remedy="close what uses it, or ask for fewer contexts",
        )


def free(pointer: int) -> None:
    """Waits for the GPU's work, and frees memory of :func:`allocate`; does nothing while Python ends."""
    with suppress(TypeError):  # the interpreter is about to end
        _cuda.cudaFree(pointer)


def allocate_pinned(size: int) -> int:
    """Allocates ``size`` bytes of pinned host memory, which the GPU copies asynchronously, and returns the address."""
    return int(_checked(_cuda.cudaMallocHost(size)))


def free_pinned(pointer: int) -> None:
    """Frees memory of :func:`allocate_pinned`; does nothing while Python ends."""
    with suppress(TypeError):
        _cuda.cudaFreeHost(pointer)


def upload(target: int, data: bytes) -> None:
    """Copies bytes from the host to the GPU, and waits until they are there."""
    _checked(_cuda.cudaMemcpy(target, data, len(data), _TO_DEVICE))


def copy_to_device(target: int, source: int, size: int, stream: Stream) -> None:
    """Enqueues a copy of ``size`` bytes from the host to the GPU."""
    _checked(_cuda.cudaMemcpyAsync(target, source, size, _TO_DEVICE, stream))


def copy_to_host(target: int, source: int, size: int, stream: Stream) -> None:
    """Enqueues a copy of ``size`` bytes from the GPU to the host."""
    _checked(_cuda.cudaMemcpyAsync(target, source, size, _TO_HOST, stream))


def copy_within_device(target: int, source: int, size: int, stream: Stream) -> None:
    """Enqueues a copy of ``size`` bytes within the GPU's memory."""
    _checked(_cuda.cudaMemcpyAsync(target, source, size, _WITHIN_DEVICE, stream))


def current_gpu() -> int:
    """Returns the index of this thread's current GPU."""
    return int(_checked(_cuda.cudaGetDevice()))


def gpu_of(pointer: int) -> int | None:
    """Returns the index of the GPU that ``pointer`` belongs to; None for memory of the host that CUDA knows.

    Raises:
        ValueError: CUDA does not know that memory.
    """
    attributes = _checked(_cuda.cudaPointerGetAttributes(pointer))
    if attributes.type == _cuda.cudaMemoryType.cudaMemoryTypeUnregistered:
        raise ValueError("not in memory of a GPU, nor in pinned memory")
    return None if attributes.type == _cuda.cudaMemoryType.cudaMemoryTypeHost else int(attributes.device)


def _checked(result: tuple[Any, ...]) -> Any:
    """Returns the first value that a function of CUDA returned beside its code.

    Raises:
        OutOfMemoryError: memory is short.
        IncompatibleError: there is no GPU or no driver, or anything else failed, with CUDA's own message.
    """
    if result[0] != _SUCCESS:
        raise _error(result[0])
    return result[1] if len(result) > 1 else None


def _error(code: Any) -> TrtcrossError:
    if code in _NO_GPU:
        # Without a driver, asking CUDA for its message crashed a Python of Windows.
        return IncompatibleError(
            f"there is no GPU to run on: {code.name}",
            where="CUDA",
            remedy="install NVIDIA's current driver; in a child process, start it with spawn instead of fork",
        )
    if code == _cuda.cudaError_t.cudaErrorMemoryAllocation:
        return OutOfMemoryError(
            "the GPU has not enough memory left", where="CUDA", remedy="close what uses it, or use smaller inputs"
        )
    text = _cuda.cudaGetErrorString(code)[1].decode()
    return IncompatibleError(
        f"the GPU failed: {text} ({code.name})",
        where="CUDA",
        remedy="start the process again; if it stays so, look for Xid errors in the system's log",
    )
