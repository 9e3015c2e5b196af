"""A stand-in for a GPU in the host's memory, and engines that are functions of numpy arrays.

Without a GPU TensorRT deserializes no engine and CUDA has no memory. What a session does between engines is our code:
where values are, in which order state is written, how errors are handled. tests/gpu runs the same on real ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx as trt

from toolchain.artifact import Artifact, Engine
from toolchain.errors import IncompatibleError
from toolchain.manifest.models import EngineEntry
from windows_side.engines import cuda
from windows_side.engines.cuda import OutOfMemoryError
from windows_side.engines.engine import LoadedEngine
from windows_side.session import arrays, graphs, running, session

# Fills an engine's output arrays from its input arrays, both by the names of bindings.
Function = Callable[[dict[str, Any], dict[str, Any]], None]


class HostMemory:
    """CUDA's memory functions. Each block must be freed exactly once, and holds arbitrary bytes at first."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.limit: int | None = None
        self.captured: list[Callable[[], object]] | None = None
        self.streams: list[int] = []

    def allocate(self, size: int) -> int:
        assert self.captured is None, "CUDA refuses to allocate in a thread that captures"
        if self.limit is not None and size > self.limit:
            raise OutOfMemoryError("the GPU has not enough memory left")
        block = np.full(size + 256, 0xA5, np.uint8)
        pointer = -(-block.ctypes.data // 256) * 256
        self.blocks[pointer] = block
        return pointer

    def free(self, pointer: int) -> None:
        del self.blocks[pointer]

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.streams.append(stream)
        self.enqueue(lambda: ctypes.memmove(target, source, size))

    def enqueue(self, work: Callable[[], object]) -> None:
        """Does the work at once, or records it while a graph is captured."""
        if self.captured is None:
            work()
        else:
            self.captured.append(work)


class HostGraph:
    """A CUDA graph: the work that was enqueued while it was captured, which each launch does."""

    def __init__(self, host: Host, enqueue: Callable[[], None]) -> None:
        self._host = host
        host.captures += 1
        self._work: list[Any] = []
        host.memory.captured = self._work
        try:
            enqueue()
        finally:
            host.memory.captured = None
        if host.broken_captures:
            host.broken_captures -= 1
            raise IncompatibleError("the GPU failed: operation failed due to a previous error during capture")
        host.graphs += 1

    def launch(self, stream: int) -> None:
        self._host.launches += 1
        for work in self._work:
            work()

    def close(self) -> None:
        self._host.graphs -= 1


class HostGpu:
    """A GPU with an index."""

    torch_index: int | None = None

    def __init__(self, index: int) -> None:
        self.index = index if self.torch_index is None else self.torch_index
        self.name, self.capability, self.is_only = "Host", (8, 9), False

    def __str__(self) -> str:
        return f"cuda:{self.index}"

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def make_current(self) -> int:
        return self.index

    def put_back(self, before: int) -> None:
        assert before == self.index

    def start(self) -> None:
        pass


class _Started:
    def __init__(self, index: int) -> None:
        self._index = index

    def result(self) -> tuple[HostGpu, None]:
        return HostGpu(self._index), None


class _Event:
    def record(self, stream: int) -> None: ...
    def hold_up(self, stream: int) -> None: ...
    def synchronize(self) -> None: ...
    def close(self) -> None: ...


class _Context:
    """TensorRT's execution context."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.shapes = {binding.name: tuple(binding.shape) for binding in engine.entry.inputs}
        self.addresses: dict[str, int] = {}
        self.profile = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        self.engine.profiles_used.append(index)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if hasattr(self.engine.function, "shapes"):
            shape: tuple[int, ...] = self.engine.function.shapes(self.shapes)[name]
            return shape
        [binding] = [binding for binding in self.engine.entry.outputs if binding.name == name]
        varying = [
            size
            for given in self.engine.entry.inputs
            for size, stated in zip(self.shapes[given.name], given.shape, strict=True)
            if stated == -1
        ]
        return tuple(varying[0] if size == -1 else size for size in binding.shape)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert pointer and not pointer % 256
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        entry = self.engine.entry
        inputs = {b.name: self._array(b.name, self.shapes[b.name], b.dtype) for b in entry.inputs}
        outputs = {b.name: self._array(b.name, self.get_tensor_shape(b.name), b.dtype) for b in entry.outputs}
        if self.engine.fails:
            return False
        self.engine.enqueue(lambda: self.engine.run(inputs, outputs))
        return True

    def _array(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        of_numpy = np.dtype("uint16" if dtype == "bfloat16" else dtype)  # numpy lacks bfloat16
        memory = (ctypes.c_uint8 * (int(np.prod(shape)) * of_numpy.itemsize)).from_address(self.addresses[name])
        return np.ndarray(shape, of_numpy, memory)


class HostEngine:
    """TensorRT's engine."""

    def __init__(self, entry: EngineEntry, function: Function, enqueue: Callable[[Callable[[], object]], None]) -> None:
        self.entry, self.function, self.enqueue = entry, function, enqueue
        self.calls, self.fails = 0, False
        self.profiles_used: list[int] = []
        self.names = [binding.name for binding in (*entry.inputs, *entry.outputs)]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = max(len(entry.profiles), 1)

    def run(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        self.calls += 1
        self.function(inputs, outputs)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_location(self, name: str) -> Any:
        return trt.TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> list[int]:
        return next(b.shape for b in (*self.entry.inputs, *self.entry.outputs) if b.name == name)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        shapes = self.entry.profiles[index][name]
        return [shapes.min, shapes.opt, shapes.max]

    def create_runtime_config(self) -> Any:
        return type("Config", (), {})()

    def create_execution_context(self, config: Any) -> _Context:
        return _Context(self)


class Host:
    """The stand-ins that tests configure and inspect.

    Attributes:
        functions: what engines compute, by their index; by default the sums of their inputs.
        strategies: the strategy of each engine that was loaded, as TensorRT-RTX names it.
        broken_captures: the number of next captures that fail.
        captures: the number of captures that were begun.
        graphs: the number of graphs that exist.
        launches: the number of launches of graphs.
    """

    def __init__(self) -> None:
        self.memory = HostMemory()
        self.pinned = HostMemory()
        self.functions: dict[int, Function] = {}
        self.engines: list[HostEngine] = []
        self.strategies: list[str] = []
        self.broken_captures = self.captures = self.graphs = self.launches = 0

    def load(
        self, runtime: Any, engine: Engine, read: Callable[[], bytes], kernels: Any, *, strategy: str
    ) -> LoadedEngine:
        self.strategies.append(strategy)

        def deserialize(plan: bytes) -> HostEngine:
            function = self.functions.get(engine.index, sums)
            self.engines.append(HostEngine(engine.entry, function, self.memory.enqueue))
            return self.engines[-1]

        runtime = type("Runtime", (), {"deserialize_cuda_engine": staticmethod(deserialize)})()
        return LoadedEngine(runtime, engine, read, kernels, strategy=strategy)


def torch_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes host tensors of torch count as tensors on the session's GPU, whose index they report as -1."""
    import torch

    class Tensors(arrays.TorchTensors):
        def __init__(self) -> None:
            super().__init__(None)
            self.on_gpu = True

        def stream(self) -> int:
            return 5

        def maker(self, shape: tuple[int, ...], dtype: str) -> Callable[[], Any]:
            return lambda: self.empty(shape, dtype)[0]

        def empty(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, int]:
            kind = getattr(torch, dtype)
            size = int(np.prod(shape)) * kind.itemsize
            whole = torch.full((size + 512,), 0x5A, dtype=torch.uint8)
            begin = -whole.data_ptr() % 512  # the alignment of torch's allocator on a GPU
            tensor = whole[begin : begin + size].view(kind).view(shape)
            return tensor, tensor.data_ptr()

    kind, read = Tensors(), arrays._torch_tensor

    def on_gpu(tensor: Any, module: Any, complain: Any) -> arrays.Given:
        given = read(tensor, module, complain)
        given.gpu, given.kind = -1, kind
        return given

    monkeypatch.setattr(arrays, "_torch_tensor", on_gpu)
    monkeypatch.setattr(HostGpu, "torch_index", -1)


def exchange_state(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each call exchange the two states of ``kv_cache``, of which the engine writes one in place."""

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        outputs["output0"][...] = inputs["state_keys"].sum() * 1000 + inputs["state_values"].sum()
        inputs["state_keys"][:, :, :1] = 1

    host.functions[0] = function
    graph = Artifact.graph

    def exchanging(artifact: Artifact) -> dict[str, Any]:
        document = graph(artifact)
        first, second, _ = document["graph_module"]["signature"]["output_specs"]
        first["buffer_mutation"]["arg"]["name"], second["buffer_mutation"]["arg"]["name"] = "b_values", "b_keys"
        return document

    monkeypatch.setattr(Artifact, "graph", exchanging)


def sums(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Fills the n-th output with the sum of all inputs, plus n."""
    total = sum(float(array.astype(np.float64).sum()) for array in inputs.values())
    for index, array in enumerate(outputs.values()):
        array[...] = total + index


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Makes sessions of the test run on the host."""
    return on_host(monkeypatch)


def on_host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Makes sessions run on the host from now on."""
    made = Host()
    for name, value in {
        "allocate": made.memory.allocate, "free": made.memory.free,
        "allocate_pinned": made.pinned.allocate, "free_pinned": made.pinned.free,
        "upload": lambda target, data: ctypes.memmove(target, data, len(data)),
        "copy_to_device": made.memory.copy, "copy_to_host": made.memory.copy, "copy_within_device": made.memory.copy,
        "create_stream": lambda: 77, "destroy_stream": lambda stream: None, "synchronize": lambda stream: None,
        "synchronize_device": lambda: None, "gpu_of": lambda pointer: 0, "current_gpu": lambda: 0,
        "free_memory": lambda: 2**30, "Event": _Event,
        "Graph": lambda stream, enqueue: HostGraph(made, enqueue),
    }.items():  # fmt: skip
        monkeypatch.setattr(cuda, name, value)
    monkeypatch.setattr(graphs, "Graph", cuda.Graph)
    monkeypatch.setattr(session, "start_ahead", lambda index: _Started(index))
    monkeypatch.setattr(running, "admit", lambda artifact, options, runtime: [])
    monkeypatch.setattr(running, "LoadedEngine", made.load)
    return made
