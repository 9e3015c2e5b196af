"""``load(contexts=N)``: several calls at once, with an engine's weights on the GPU once.

An engine object of Torch-TensorRT has one execution context, and gives access neither to another one nor to the engine
within. So engines are deserialized here by TensorRT-RTX's own API, and each copy of the graph calls its own contexts.
The tensors that stayed in PyTorch are the same in every copy.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn
from weakref import WeakSet

import torch

from toolchain.artifact import Artifact
from toolchain.engine.info import ENGINE_FIELD
from toolchain.errors import IncompatibleError, UsageError
from toolchain.manifest.models import EngineEntry
from toolchain.targets import Backend
from windows_side.engines import cuda
from windows_side.engines.engine import EngineContext, LoadedEngine, create_contexts, create_runtime
from windows_side.engines.kernels import Kernels
from windows_side.execution.flat_program import FlatProgram, break_cycles
from windows_side.execution.kernel_cache import identity_on
from windows_side.kernel_choice import strategy
from windows_side.kernel_files import chosen_folder
from windows_side.launch_lock import LAUNCH_LOCK
from windows_side.loader.flat import attribute_of, read_flat
from windows_side.loader.graph_operators import UnknownFormError
from windows_side.options import LoadOptions

_ALIGNMENT = 256  # of the memory that TensorRT reads

# Engines to free when Python exits: TensorRT's objects must be released before CUDA is.
_OPEN: WeakSet[SharedEngines] = WeakSet()


def programs_in_contexts(
    artifact: Artifact, place: torch.device, options: LoadOptions
) -> tuple[list[FlatProgram], SharedEngines]:
    """Reads an artifact that was found safe to load, and makes a program for each of ``options.contexts``.

    Returns:
        The programs, and the engines that they share, which also keep the compiled kernels.

    Raises:
        IncompatibleError: calls of this model cannot run at once, or memory is short.
    """
    _require_rtx(artifact)
    shared = SharedEngines(artifact, place, options)
    try:
        return _read(artifact, place, shared, options.contexts), shared
    except BaseException:
        shared.close()  # the error's frames refer to it
        raise


def _read(artifact: Artifact, place: torch.device, shared: SharedEngines, count: int) -> list[FlatProgram]:
    entries = iter(artifact.engines)
    try:
        program = read_flat(artifact, place, None, lambda fields: shared.make(next(entries), fields))
    except UnknownFormError as reason:
        raise _one_context_only(artifact, f"torch.export must read its graph: {reason}") from reason
    if program.state:
        raise _one_context_only(artifact, f"they would change its state ({', '.join(program.state[:3])})")
    return [
        _copied(program, list(map(shared.call, shared.engines, contexts)))
        for contexts in create_contexts(shared.engines, shared.kernels, count)
    ]


class SharedEngines:
    """An artifact's engines on one GPU, and their compiled kernels.

    It keeps the kernels of a model as :class:`.kernel_cache.RuntimeCache` does.

    Attributes:
        engines: the engines in graph order.
        kernels: their kernels in the cache that ``load`` and ``Session`` share.
    """

    def __init__(self, artifact: Artifact, place: torch.device, options: LoadOptions) -> None:
        folder = chosen_folder(options.runtime_cache)
        identity = identity_on(artifact.manifest, place) if folder is not None else None
        self.kernels = Kernels(folder, identity, cuda.Gpu(place.index))
        self.engines: list[LoadedEngine] = []
        self._place = place
        self._calls: WeakSet[EngineCall] = WeakSet()
        self._strategy = strategy(options.kernels, cuda_graphs=options.cuda_graphs)
        self._runtime = create_runtime()
        _OPEN.add(self)

    def make(self, engine: Any, fields: list[str | bytes]) -> LoadedEngine:
        """Deserializes an engine.

        Args:
            engine: the engine in the artifact.
            fields: its engine info, whose digest was checked as it was read; the list is emptied.
        """

        def read() -> bytes:
            plan = fields[ENGINE_FIELD]
            fields.clear()
            return bytes(plan) if isinstance(plan, bytes) else b""

        made = LoadedEngine(self._runtime, engine, read, self.kernels, strategy=self._strategy)
        self.engines.append(made)
        return made

    def call(self, engine: LoadedEngine, context: EngineContext) -> EngineCall:
        """Makes the object that calls one of the engines in one of its contexts."""
        made = EngineCall(context, engine.entry, self._place, self)
        self._calls.add(made)
        return made

    @property
    def warm(self) -> bool:
        """Whether the kernels were there when the model was loaded."""
        return self.kernels.warm

    def after_call(self, leaves: Sequence[Any]) -> None:
        """Writes the kernels if a call with new shapes may have compiled some."""
        if self.kernels.are_new(tuple([getattr(leaf, "shape", None) for leaf in leaves])):
            self.save()

    def save(self) -> None:
        """Writes the kernels. A failure is only logged, because a model runs without its cache too."""
        with LAUNCH_LOCK.capturing():  # no engine is launched while the cache is read
            self.kernels.save()

    def close(self) -> None:
        """Writes the kernels, and frees contexts before engines, and engines before the runtime."""
        self.kernels.save()
        for call in self._calls:
            call.close()
        for engine in self.engines:
            engine.close()
        self.kernels.close()
        self._runtime = None


class EngineCall:
    """One engine in one execution context, called with torch's tensors. Two calls must not run at once."""

    def __init__(self, context: EngineContext, entry: EngineEntry, place: torch.device, shared: SharedEngines) -> None:
        self._context: EngineContext | None = context
        self._name = entry.name
        self._place = place
        self._shared = shared  # keeps the engines until the last call object is released
        self._inputs = [getattr(torch, binding.dtype) for binding in entry.inputs]
        self._outputs = [getattr(torch, binding.dtype) for binding in entry.outputs]
        # TensorRT refuses a null address, which an empty tensor has, so it gets the address of this memory.
        self._nothing = torch.empty(_ALIGNMENT, dtype=torch.uint8, device=place)
        self._stream = torch.cuda.Stream(place) if place.type == "cuda" else None

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueues the engine in torch's current stream, and returns its results as new tensors.

        On the default stream TensorRT would wait for the whole GPU. The engine then runs in a stream of its own, which
        is ordered with the default stream.

        Raises:
            UsageError: Python exits, and the engines are freed.
            IncompatibleError: no profile takes these shapes, or TensorRT fails.
        """
        if self._context is None:
            raise UsageError(
                "the model's engines are freed", where="a call while Python exits", remedy="call it before"
            )
        current = torch.cuda.current_stream(self._place) if self._stream else None
        own = self._stream if current is not None and not current.cuda_stream else None
        stream = own or current
        handle = stream.cuda_stream if stream else 0
        tensors = [self._readable(tensor, dtype) for tensor, dtype in zip(inputs, self._inputs, strict=True)]
        with self._shared.kernels.watched():
            shapes = self._context.use_shapes(handle, [tuple(tensor.shape) for tensor in tensors])
            outputs = [
                torch.empty(shape, dtype=dtype, device=self._place) if alias is None else tensors[alias]
                for shape, dtype, alias in zip(shapes, self._outputs, self._context.aliases, strict=True)
            ]
            # Copies and memory are in the order of the current stream. So the own stream waits for it before the
            # engine, and it waits for the own stream before any of them is released.
            if own is not None and current is not None:
                own.wait_stream(current)
            self._context.enqueue(handle, list(map(self._address, [*tensors, *outputs])))
            if own is not None and current is not None:
                current.wait_stream(own)
        return outputs

    def close(self) -> None:
        """Frees the context."""
        self._context = None

    def _readable(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if tensor.dtype is not dtype or tensor.device.type != self._place.type:
            given = f"{tensor.dtype} on {tensor.device}"
            raise IncompatibleError(f"the graph gives the engine {self._name} {given}, which takes {dtype}")
        ordered = tensor.detach().resolve_conj().resolve_neg().contiguous()
        return ordered.clone() if ordered.data_ptr() % _ALIGNMENT else ordered

    def _address(self, tensor: torch.Tensor) -> int:
        return tensor.data_ptr() or self._nothing.data_ptr()


def call_engine(inputs: Sequence[torch.Tensor], engine: EngineCall) -> list[torch.Tensor]:
    """Calls an engine; a graph has this function in the place of ``tensorrt::execute_engine``."""
    return engine(inputs)


def _copied(program: FlatProgram, calls: Sequence[EngineCall]) -> FlatProgram:
    """Returns a copy of the program with these engine calls; the tensors are shared."""
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(program.module.graph, {}))
    engines = {id(engine): call for engine, call in zip(program.engines, calls, strict=True)}
    attributes: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            held = attribute_of(program.module, str(node.target))
            attributes[str(node.target)] = engines.get(id(held), held)
        elif node.target is torch.ops.tensorrt.execute_engine.default:
            node.target = call_engine
    module = torch.fx.GraphModule(attributes, graph)
    break_cycles(module)
    return replace(program, module=module, engines=list(calls), exported=_no_exported_program)


def _no_exported_program() -> NoReturn:
    raise UsageError(
        "a model in several contexts has no exported program: its engines are not Torch-TensorRT's",
        where="program",
        remedy="load it with contexts=1",
    )


def _require_rtx(artifact: Artifact) -> None:
    if artifact.foreign:
        raise _one_context_only(artifact, "it is a foreign file")
    if artifact.manifest.target.backend is not Backend.TENSORRT_RTX:
        raise _one_context_only(artifact, "its engines are TensorRT's, not TensorRT-RTX's")
    for engine in artifact.manifest.engines:
        if engine.requires_output_allocator:
            raise _one_context_only(artifact, f"the outputs of {engine.name} have sizes that depend on values")


def _one_context_only(artifact: Artifact, reason: str) -> IncompatibleError:
    return IncompatibleError(
        f"no two calls of this model can run at once: {reason}",
        where=f"{artifact.path}, load(contexts=)",
        remedy="load it with contexts=1, or once for each call that runs beside others",
    )


@atexit.register
def _close_all() -> None:
    for shared in list(_OPEN):
        shared.close()
