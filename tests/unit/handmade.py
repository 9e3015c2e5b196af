"""Writes artifacts by hand, for tests without torch: our own writer, graph and manifest around an engine's header.

The plan header is that of a real engine (TensorRT-RTX 1.6.1.120, ResNet-18). The rest of the engine is filler, because
nothing that these tests call reads more of an engine than its header.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from toolchain.container.entry_names import GOLDEN_ENTRY, GRAPH_ENTRY, MANIFEST_ENTRY
from toolchain.container.writer import ContainerWriter
from toolchain.engine.info import EngineInfo, RuntimeDevice
from toolchain.graph.document import PLACEHOLDER_TARGET, dump_graph
from toolchain.graph.skeleton import engine_token
from toolchain.graph.writer import EngineSource, engine_from_buffer, write_graph
from toolchain.manifest.install import install_lines
from toolchain.manifest.models import FileEntry, Manifest
from toolchain.targets import ComputeCapability

PLAN_HEADER = bytes.fromhex(
    "76747274000000000200000000000000646bcf020000000001060178767472747e000000000000000000000000000000"
    "f0320000000000000002c90200000000"
)

# A pickle as the builder writes it: the shapes of one input and one output, and torch.float32 by name.
METADATA = (
    "gASVqQAAAAAAAAB9lCiMDmlub3V0X3N5bWV4cHJzlH2UKIwGaW5wdXRzlF2UfZQojAtzaGFwZV9leHByc5RdlChLAUsDS+BL4GWMBWR0eXBllIwF"
    "dG9yY2iUjAdmbG9hdDMylJOUjARuYW1llIwBeJR1YYwHb3V0cHV0c5RdlH2UKGgGXZQoSwFN6ANlaAhoC3VhdYwab3V0cHV0X3RlbnNvcnNfYXJl"
    "X3Vub3duZWSUiXUu"
)

LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
IN_SPEC = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}])
OUT_SPEC = json.dumps([1, LEAF])


def plan(filler: bytes = b"") -> bytes:
    """Returns an engine with a real header that states the engine's size."""
    data = bytearray(PLAN_HEADER + filler)
    struct.pack_into("<Q", data, 16, len(data))
    return bytes(data)


def engine_info(index: int = 0) -> EngineInfo:
    return EngineInfo(
        name=f"engine_{index}",
        device=RuntimeDevice(0, ComputeCapability(8, 0), 0, "NVIDIA sm_80"),
        input_names=("x",),
        output_names=("output0",),
        hardware_compatible=True,
        metadata=METADATA,
        target_platform="windows_x86_64",
    )


def placeholder_node(index: int, fields: list[Any]) -> dict[str, Any]:
    return {
        "target": PLACEHOLDER_TARGET,
        "inputs": [{"name": "inputs", "arg": {"as_tensors": [{"name": "x"}]}, "kind": 1}]
        + [{"name": f"field_{i}", "arg": {"as_string": text}, "kind": 1} for i, text in enumerate(fields)],
        "outputs": [{"as_tensors": [{"name": f"getitem_{index}"}]}],
        "metadata": {},
        "name": f"placeholder_{index}",
    }


def golden(dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> bytes:
    """Returns a safetensors file: the length of its header, the header as JSON, and the data."""
    size = {"F32": 4, "F16": 2, "I64": 8}[dtype] * math.prod(shape)
    header = {
        "0.input.0": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]},
        "0.output.0": {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size + 4)


@dataclass
class Handmade:
    """The parts of an artifact; a test changes some of them and then writes the artifact.

    Attributes:
        edit_manifest: changes the finished manifest, as parsed JSON, before it is written.
    """

    engines: list[bytes] = field(default_factory=lambda: [plan(b"engine")])
    graph: dict[str, Any] | None = None
    entries: dict[str, bytes] = field(default_factory=dict)
    golden: bytes | None = field(default_factory=golden)
    edit_manifest: Callable[[dict[str, Any]], Any] = lambda document: None

    def __post_init__(self) -> None:
        self.graph = self.graph or self._graph()
        self.entries = {
            "data/weights/model_weights_config.json": b'{"config": {}}',
            "data/constants/model_constants_config.json": b'{"config": {}}',
            "data/sample_inputs/model.pt": b"",
            "archive_format": b"pt2",
            "byteorder": b"little",
            **self.entries,
        }

    @property
    def nodes(self) -> list[dict[str, Any]]:
        assert self.graph
        return self.graph["graph_module"]["graph"]["nodes"]

    def write(self, path: Path) -> Path:
        files: dict[str, FileEntry] = {}
        with ContainerWriter(path) as writer:
            sources = [engine_from_buffer(engine) for engine in self.engines]
            graph = write_graph(writer, dump_graph(self.graph or {}), sources)
            files[GRAPH_ENTRY] = graph.file
            entries = dict(self.entries)
            if self.golden is not None:
                entries[GOLDEN_ENTRY] = self.golden
            for name, data in entries.items():
                files[name] = FileEntry(sha256=writer.add(name, data), size=len(data))
            document = self._manifest(sources, graph, files)
            self.edit_manifest(document)
            writer.add(MANIFEST_ENTRY, json.dumps(document).encode())
        return path

    def _graph(self) -> dict[str, Any]:
        nodes = [placeholder_node(i, list(engine_info(i).fields(engine_token(i)))) for i in range(len(self.engines))]
        tensor = {"sizes": [{"as_int": 1}], "device": {"type": "cuda", "index": 0}}
        return {"graph_module": {"graph": {"nodes": nodes, "tensor_values": {"x": tensor}}}, "guards_code": []}

    def _manifest(self, sources: list[EngineSource], graph: Any, files: dict[str, FileEntry]) -> dict[str, Any]:
        document = copy.deepcopy(MANIFEST)
        document["golden"] = GOLDEN if self.golden is not None else None
        document["files"] = {name: file.model_dump() for name, file in files.items()}
        document["engines"] = [
            {
                "name": f"engine_{i}",
                "node": f"placeholder_{i}",
                "sha256": written.sha256,
                "size": source.size,
                "base64": written.span.model_dump(),
                "plan": {"magic": "vtrt", "release": "1.6.1.120", "capability_mask": 0x7E},
                "inputs": [BINDING],
                "outputs": [{**BINDING, "name": "output0"}],
                "profiles": [],
                "requires_output_allocator": False,
                "aliased_io": [],
            }
            for i, (source, written) in enumerate(zip(sources, graph.engines, strict=True))
        ]
        return json.loads(Manifest.model_validate(_with_install_lines(document)).to_json())


def _with_install_lines(document: dict[str, Any]) -> dict[str, Any]:
    draft = Manifest.model_validate(document)
    return {**document, "install": install_lines(draft.target, draft.producer)}


BINDING = {"name": "x", "dtype": "float32", "shape": [1]}
VALUE = {"name": "x", "dtype": "float32", "device": "cuda:0", "shape": [1], "value": None}
GOLDEN = {
    "entry": GOLDEN_ENTRY,
    "samples": 1,
    "tolerance": {"float32": {"relative_l2": 0.005, "max_relative": 0.02}},
}
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "created": datetime(2026, 11, 23, tzinfo=timezone.utc).isoformat(),
    "stock_readable": True,
    "producer": {
        "trtcross": "0.1.0",
        "torch": "2.14.1+cu130",
        "torch_tensorrt": {"name": "torch-tensorrt-rtx", "version": "2.14.0"},
        "tensorrt": {"name": "tensorrt-rtx", "version": "1.6.1.120"},
        "python": "3.11.7",
        "os": "Linux x86_64",
        "gpu": None,
        "driver": None,
    },
    "model": {"name": "handmade", "digest": "0" * 64},
    "settings": {"target": "windows-x86_64", "golden": 1},
    "target": {
        "platform": "windows-x86_64",
        "compute_capabilities": ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"],
        "backend": "tensorrt-rtx",
        "runtime": "1.6.1.120",
        "abi_version": 10,
    },
    "install": [],
    "call": {"in_spec": IN_SPEC, "out_spec": OUT_SPEC, "argument_names": ["x"]},
    "inputs": [VALUE],
    "outputs": [{**VALUE, "name": "output"}],
    "engines": [],
    "fallback": [],
    "coverage": {"operators": 1, "in_engines": 1},
    "files": {},
    "golden": None,
    "build": {"seconds": {}, "cache_key": None, "from_cache": False},
}
