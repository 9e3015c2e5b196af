"""Makes compiled modules around engines of any size: random bytes, in the real classes of upstream or ours.

The graph is what a compiler passes to its exporter: engine submodules (upstream's ``TorchTensorRTModule``, or ours),
which are called by a graph whose nodes have fake tensors. Only the plan's bytes are random.
"""

from __future__ import annotations

import hashlib
import operator
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toolchain.engine.info import EngineInfo, RuntimeDevice
from toolchain.engine.plan_header import HEADER_SIZE
from toolchain.graph.writer import EngineSource
from toolchain.io.base64_stream import RAW_CHUNK
from toolchain.manifest.models import Manifest
from toolchain.targets import ComputeCapability

MIB = 2**20


def plan_header(size: int) -> bytes:
    """Returns the header of a TensorRT-RTX plan of ``size`` bytes, for SM86 and SM89."""
    header = bytearray(HEADER_SIZE)
    header[:4] = header[28:32] = b"vtrt"
    struct.pack_into("<Q", header, 16, size)
    header[24:28] = bytes((1, 6, 1, 120))
    struct.pack_into("<I", header, 32, 0x0C)
    return bytes(header)


def engine_bytes(size: int) -> bytes:
    """Returns an engine in memory: random bytes, which do not compress, after a real header."""
    data = bytearray(os.urandom(min(size, 64 * MIB)) * -(-size // (64 * MIB)))
    data[:HEADER_SIZE] = plan_header(size)
    return bytes(memoryview(data)[:size])


def streamed_engine(size: int, seed: int = 0) -> EngineSource:
    """Returns an engine that is generated chunk by chunk, with the same bytes each time it is read."""
    # The length is odd, so that the repetition is at a different offset in each chunk.
    block = hashlib.shake_256(seed.to_bytes(8, "little")).digest(MIB + 1) * 16

    def chunks() -> Iterator[bytes]:
        head = plan_header(size)
        yield head + block[: RAW_CHUNK - len(head)][: size - len(head)]
        position = RAW_CHUNK
        while position < size:
            start = position % (len(block) - RAW_CHUNK)
            chunk = block[start : start + min(RAW_CHUNK, size - position)]
            yield chunk
            position += len(chunk)

    return EngineSource(size, chunks)


def import_upstream() -> Any:
    """Imports Torch-TensorRT on a machine without a GPU; its exporter asks for a GPU's name, and gets ``none``."""
    import torch

    from linux_side.upstream import import_torch_tensorrt

    upstream = import_torch_tensorrt(ComputeCapability(8, 0))
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(major=8, minor=0, name="none")
    return upstream


def upstream_module(name: str, data: bytes) -> Any:
    """Returns Torch-TensorRT's engine submodule, whose engine is never set up; call :func:`import_upstream` before."""
    from torch_tensorrt import Device
    from torch_tensorrt.dynamo._settings import CompilationSettings
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    settings = CompilationSettings(device=Device(gpu_id=0), enable_cross_compile_for_windows=True)
    return TorchTensorRTModule(data, ["x"], ["y0", "y1"], name=name, settings=settings)


def our_module(name: str, plan: EngineSource) -> Any:
    """Returns the engine submodule that our own build puts into a graph."""
    import torch

    from linux_side.exporter.engine_module import CompiledEngine, EngineModule
    from linux_side.lowering.engine_metadata import encode_metadata

    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(1, 8)
    graph.output((x, x))
    info = EngineInfo(
        name=name,
        device=RuntimeDevice(0, ComputeCapability(8, 0), 0, "sm_80"),
        input_names=("x",),
        output_names=("y0", "y1"),
        hardware_compatible=True,
        metadata=encode_metadata(torch.fx.GraphModule(torch.nn.Module(), graph)),
        target_platform="windows_x86_64",
    )
    return EngineModule(CompiledEngine(info, plan))


def compiled_module(engines: Sequence[Any]) -> Any:
    """Returns a GraphModule that calls the engine submodules one after the other, as the compiler makes it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    value = FakeTensorMode().from_tensor(torch.zeros(1, 8))
    root, graph = torch.nn.Module(), torch.fx.Graph()
    node = graph.placeholder("x")
    node.meta["val"] = value
    for index, engine in enumerate(engines):
        call = f"_run_on_acc_{index}"
        root.add_module(call, engine)
        both = graph.call_module(call, (node,))
        both.meta["val"] = (value, value)
        node, other = (graph.call_function(operator.getitem, (both, i)) for i in range(2))
        node.meta["val"] = other.meta["val"] = value
        node = graph.call_function(torch.ops.aten.add.Tensor, (node, other))
        node.meta["val"] = value
    graph.output((node,))
    return torch.fx.GraphModule(root, graph)


def manifest_members(in_spec: str, out_spec: str) -> dict[str, Any]:
    """Returns the members of a manifest except ``engines``, ``files`` and ``stock_readable``."""
    tensor = {"name": "x", "dtype": "float32", "device": "cuda:0", "shape": [1, 8]}
    return {
        "created": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "producer": {
            "trtcross": metadata.version("trtcross"),
            "torch": "2.14.1",
            "torch_tensorrt": {"name": "torch-tensorrt-rtx", "version": "2.14.0"},
            "tensorrt": {"name": "tensorrt-rtx", "version": "1.6.1.120"},
            "python": ".".join(map(str, sys.version_info[:3])),
            "os": "Linux x86_64",
            "gpu": None,
            "driver": None,
        },
        "model": {"name": "synthetic", "digest": "0" * 64},
        "settings": {},
        "target": {
            "platform": "windows-x86_64",
            "compute_capabilities": ["sm_86", "sm_89"],
            "backend": "tensorrt-rtx",
            "runtime": "1.6.1.120",
            "abi_version": 10,
        },
        "install": [],
        "call": {"in_spec": in_spec, "out_spec": out_spec, "argument_names": ["x"]},
        "inputs": [tensor],
        "outputs": [{**tensor, "name": "y"}],
        "fallback": [],
        "coverage": {"operators": 1, "in_engines": 1},
        "golden": None,
        "build": {"seconds": {}, "cache_key": None, "from_cache": False},
    }


def prepared(module: Any, spool: Path) -> Callable[[Path, bytes | None], Manifest]:
    """Exports a compiled module, and returns a function that writes the artifact at each call.

    The function takes the path and the bytes of the golden entry, or None for an artifact without one.
    """
    from torch.utils import _pytree as pytree

    from linux_side.driver.artifact_writer import serialize_program, write_artifact
    from linux_side.exporter import export
    from linux_side.exporter.engine_module import CompiledEngine
    from linux_side.lowering.convert import EngineFacts
    from toolchain.graph.skeleton import engine_token

    engines: list[CompiledEngine] = []

    def field(engine: CompiledEngine, index: int) -> str:
        engines.append(engine)
        return engine_token(index)

    program = export(module, cross_compile=True, engine_field=field)
    specs = [pytree.treespec_dumps(spec) for spec in (program.call_spec.in_spec, program.call_spec.out_spec)]
    facts = {engine.info.name: EngineFacts([], [], []) for engine in engines}
    serialized = serialize_program(program, spool)
    return lambda out, golden: write_artifact(out, serialized, engines, facts, golden, manifest_members(*specs))


def save(module: Any, out: Path, spool: Path) -> Manifest:
    """Exports a compiled module and writes the artifact, as a build does."""
    return prepared(module, spool)(out, None)
