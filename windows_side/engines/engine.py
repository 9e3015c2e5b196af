"""An engine on the GPU, and its execution contexts: profiles, shapes and addresses."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from toolchain.artifact import Engine
from toolchain.errors import IncompatibleError, MalformedArtifactError, MissingComponentError
from toolchain.manifest.models import EngineEntry
from windows_side.engines.cuda import OutOfMemoryError, Stream, require_free
from windows_side.engines.kernels import Kernels
from windows_side.kernel_files import MOST_SHAPES
from windows_side.launch_lock import LaunchLock

logger = logging.getLogger("trtcross.session")

Shape = tuple[int, ...]
_Bounds = tuple[Shape, Shape]
# Returns the address for an output, by its index and shape.
Place = Callable[[int, Shape], int]

_OWN_WORDS = "TensorRT-RTX printed its reason on stderr"


class LoadedEngine:
    """An engine whose weights are on the current GPU.

    Attributes:
        entry: the engine's entry in the manifest.
    """

    def __init__(
        self, runtime: Any, engine: Engine, read: Callable[[], bytes], kernels: Kernels, *, strategy: str
    ) -> None:
        """Deserializes the engine on the current GPU.

        Args:
            runtime: TensorRT's runtime, of :func:`create_runtime`.
            engine: the engine in the artifact.
            read: returns the engine's bytes, whose digest was checked.
            kernels: the compiled kernels, which the artifact's engines share.
            strategy: TensorRT-RTX's strategy for sizes that vary, of :mod:`windows_side.kernel_choice`.

        Raises:
            IncompatibleError: the engine needs what a session lacks, or memory is short.
            MalformedArtifactError: the engine's digest is wrong, TensorRT refuses it, or its inputs and outputs are not
                those of the manifest.
        """
        self.entry = entry = engine.entry
        self._launches = kernels.launches
        _require_simple(entry)
        plan = read()
        logger.debug("an engine is read")
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            require_free(len(plan), f"the engine {entry.name}")
            raise MalformedArtifactError(
                f"TensorRT-RTX does not take the engine {entry.name}: {_OWN_WORDS}",
                where=f"engine {entry.name}",
                remedy="`trtcross check` says whether it fits this machine; otherwise build it again",
            )
        del plan
        logger.debug("it is deserialized")
        self._require_bindings()
        self._config = self._engine.create_runtime_config()
        strategies = import_tensorrt().DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, strategy.upper())
        kernels.attach(self._config)
        logger.debug("its kernels are read")

    def create_context(self) -> EngineContext:
        """Creates a context, which runs the engine for one call at a time and has scratch memory of its own.

        Raises:
            OutOfMemoryError: the GPU has too little memory left for it.
            IncompatibleError: TensorRT-RTX makes no context for another reason.
        """
        context = self._engine.create_execution_context(self._config)
        if context is None:
            require_free(int(self._engine.device_memory_size_v2), f"an execution context of {self.entry.name}")
            raise IncompatibleError(
                f"TensorRT-RTX makes no execution context of the engine {self.entry.name}: {_OWN_WORDS}",
                where=f"engine {self.entry.name}",
                remedy="`trtcross verify` says whether the artifact runs here at all",
            )
        return EngineContext(self._engine, context, self.entry, self._launches)

    def close(self) -> None:
        """Frees the weights, once no context is left, even if something (such as an error's frame) refers to this."""
        self._engine = self._config = None

    def _require_bindings(self) -> None:
        """Checks that the engine's inputs and outputs are those of the manifest.

        Raises:
            MalformedArtifactError: the engine's inputs and outputs are not those that the manifest lists.
            IncompatibleError: the engine needs one of them in host memory.
        """
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        listed = [binding.name for binding in (*self.entry.inputs, *self.entry.outputs)]
        if sorted(names) != sorted(listed):
            raise MalformedArtifactError(
                "the engine has other inputs and outputs than the manifest lists", where=f"engine {self.entry.name}"
            )
        for name in names:
            if self._engine.get_tensor_location(name) != import_tensorrt().TensorLocation.DEVICE:
                raise IncompatibleError(
                    f"the engine {self.entry.name} takes {name} from the host's memory",
                    where="Session",
                    remedy="use windows_side.load",
                )


class EngineContext:
    """Runs an engine on arrays that are given by their addresses.

    Attributes:
        addresses: the addresses of inputs and outputs at the last run; -1 where TensorRT has none.
        aliases: for each output the index of the input whose memory it shares, or None.
    """

    def __init__(self, engine: Any, context: Any, entry: EngineEntry, launches: LaunchLock) -> None:
        self._context = context
        self._launches = launches
        self._enqueued: set[tuple[int, tuple[Shape, ...]]] = set()  # profiles, and shapes that were enqueued in them
        self._shapes_are_new = True  # nothing was enqueued with the current profile and shapes
        self._inputs = [binding.name for binding in entry.inputs]
        self._outputs = [binding.name for binding in entry.outputs]
        self.aliases = _aliases(entry)
        self._profiles = _profiles(engine, self._inputs)
        self._profile = 0
        self._shapes: list[Shape] | None = None
        self._output_shapes: list[Shape] = []
        self._names = [*self._inputs, *self._outputs]
        self.addresses: list[int] = [-1] * len(self._names)
        self._name = entry.name

    def run(
        self, stream: Stream, shapes: list[Shape], pointers: Sequence[int], place: Place
    ) -> list[tuple[int, Shape]]:
        """Sets shapes and addresses, and enqueues the engine.

        Args:
            shapes: the inputs' shapes, in the order of the bindings.
            pointers: the inputs' addresses.
            place: returns the address for an output; it is not called for one that shares an input's memory.

        Returns:
            The addresses and the shapes of the outputs.

        Raises:
            IncompatibleError: no profile takes these shapes, or TensorRT fails.
        """
        output_shapes = self.use_shapes(stream, shapes)
        addresses = list(pointers)
        for index, shape in enumerate(output_shapes):
            alias = self.aliases[index]
            addresses.append(place(index, shape) if alias is None else pointers[alias])
        self.enqueue(stream, addresses)
        return list(zip(addresses[len(pointers) :], output_shapes, strict=True))

    def use_shapes(self, stream: Stream, shapes: list[Shape]) -> list[Shape]:
        """Sets the inputs' shapes for what is enqueued from now on.

        Returns:
            The outputs' shapes.

        Raises:
            IncompatibleError: no profile takes these shapes, or TensorRT fails.
        """
        if shapes != self._shapes:
            self._set_shapes(stream, shapes)
        return self._output_shapes

    def enqueue(self, stream: Stream, addresses: list[int]) -> None:
        """Enqueues the engine with the shapes that were set last.

        Args:
            addresses: the addresses of the inputs and then of the outputs, in the order of the bindings. The list is
                kept, so the caller must not change it.

        Raises:
            IncompatibleError: TensorRT fails.
        """
        if addresses != self.addresses:
            self._set_addresses(addresses)
        if self._shapes_are_new:
            self._enqueue_first(stream)
        else:
            with self._launches.launching:
                self._execute(stream)

    def _enqueue_first(self, stream: Stream) -> None:
        """Enqueues the engine while no other one runs.

        With new shapes TensorRT-RTX compiles kernels, or finds them in the cache that all contexts share.
        """
        with self._launches.capturing():
            self._execute(stream)
        if len(self._enqueued) == MOST_SHAPES:
            self._enqueued.clear()  # the next call of each set of shapes counts as the first one again
        self._enqueued.add((self._profile, tuple(self._shapes or ())))
        self._shapes_are_new = False

    def _execute(self, stream: Stream) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._failed("does not run")

    def _set_addresses(self, addresses: list[int]) -> None:
        before, self.addresses = self.addresses, [-1] * len(self._names)  # unknown if TensorRT refuses one
        for name, pointer, old in zip(self._names, addresses, before, strict=True):
            if pointer != old and not self._context.set_tensor_address(name, pointer):
                raise self._failed(f"does not take an address for {name}")
        self.addresses = addresses

    def _set_shapes(self, stream: Stream, shapes: list[Shape]) -> None:
        self._shapes = None
        self._choose_profile(stream, shapes)
        for name, shape in zip(self._inputs, shapes, strict=True):
            if not self._context.set_input_shape(name, shape):
                raise self._failed(f"does not take the shape {shape} for {name}")
        self._output_shapes = [tuple(self._context.get_tensor_shape(name)) for name in self._outputs]
        if any(size < 0 for shape in self._output_shapes for size in shape):
            raise self._failed("has outputs whose sizes are known only after it has run")
        self._shapes = list(shapes)
        self._shapes_are_new = (self._profile, tuple(shapes)) not in self._enqueued

    def _choose_profile(self, stream: Stream, shapes: Sequence[Shape]) -> None:
        """Keeps the active profile if it fits the shapes, else takes the first one that does."""
        if len(self._profiles) < 2:
            return  # TensorRT itself compares shapes with the only profile
        order = [self._profile, *(index for index in range(len(self._profiles)) if index != self._profile)]
        for index in order:
            if all(_fits(shape, bounds) for shape, bounds in zip(shapes, self._profiles[index], strict=True)):
                break
        else:
            raise self._failed(f"has no optimization profile for the shapes {shapes}")
        if index != self._profile:
            if not self._context.set_optimization_profile_async(index, stream):
                raise self._failed(f"does not change to its profile {index}")
            self._profile = index
            self.addresses = [-1] * len(self._names)

    def _failed(self, problem: str) -> IncompatibleError:
        return IncompatibleError(
            f"the engine {self._name} {problem}: {_OWN_WORDS}",
            where=f"engine {self._name}",
            remedy="`trtcross inspect` lists profiles and ranges; if the GPU failed, start the process again",
        )


def create_contexts(engines: Sequence[LoadedEngine], kernels: Kernels, count: int) -> Iterator[list[EngineContext]]:
    """Yields ``count`` lists of contexts, each with one context of every engine.

    Raises:
        OutOfMemoryError: not all fit; the error reports how many do.
    """
    for number in range(count):
        try:
            with kernels.watched():
                contexts = [engine.create_context() for engine in engines]
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{number} of {count} contexts fit: {error.problem}",
                where="contexts",
                remedy="close what uses the GPU, or ask for fewer contexts",
            ) from error
        yield contexts


@cache
def import_tensorrt() -> Any:
    """Imports TensorRT-RTX's Python package.

    Raises:
        MissingComponentError: the package is not installed, or its library does not load.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise MissingComponentError(
            f"TensorRT-RTX cannot be imported: {error}",
            where="this Python environment",
            remedy="python -m pip install tensorrt-rtx; `trtcross check ARTIFACT` names the release",
        ) from error


def create_runtime() -> Any:
    """Creates TensorRT's runtime for the current GPU."""
    # Its logger is native: one in Python could deadlock with a thread of TensorRT's that logs.
    trt = import_tensorrt()
    return trt.Runtime(trt.Logger(trt.Logger.ERROR))


def _aliases(entry: EngineEntry) -> list[int | None]:
    """Returns for each output the index of the input whose memory it shares, or None."""
    inputs = [binding.name for binding in entry.inputs]
    shared = {alias.output: inputs.index(alias.input) for alias in entry.aliased_io}
    return [shared.get(binding.name) for binding in entry.outputs]


def _profiles(engine: Any, names: Sequence[str]) -> list[list[_Bounds | None]]:
    """Returns the least and the greatest shape of each input in each profile; None for inputs with fixed shapes."""
    dynamic = [name if -1 in tuple(engine.get_tensor_shape(name)) else None for name in names]
    return [
        [_bounds(engine, name, index) if name else None for name in dynamic]
        for index in range(engine.num_optimization_profiles)
    ]


def _bounds(engine: Any, name: str, profile: int) -> _Bounds:
    low, _, high = engine.get_tensor_profile_shape(name, profile)
    return tuple(low), tuple(high)


def _fits(shape: Shape, bounds: _Bounds | None) -> bool:
    if bounds is None:
        return True
    low, high = bounds
    return len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))


def _require_simple(entry: EngineEntry) -> None:
    """Checks that the outputs' sizes are known before a call.

    Raises:
        IncompatibleError: the sizes of outputs depend on values.
    """
    if entry.requires_output_allocator:
        raise IncompatibleError(
            f"the outputs of {entry.name} have sizes that depend on values",
            where="Session",
            remedy="use windows_side.load",
        )
