"""A file as Torch-TensorRT's own saver leaves it, written by hand, for tests without torch."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.unit.handmade import IN_SPEC, OUT_SPEC, engine_info, placeholder_node, plan
from toolchain.engine_info import FIELD_COUNT, EngineInfo

TENSOR = {
    "dtype": 7,
    "sizes": [{"as_int": 1}],
    "requires_grad": False,
    "device": {"type": "cuda", "index": 0},
    "strides": [{"as_int": 1}],
    "storage_offset": {"as_int": 0},
    "layout": 7,
}
RELEASES = {6: "2.6.0", 7: "2.9.1", 8: "2.11.0", 9: "2.13.0+cu130", 10: "2.14.1+cu130"}


@dataclass
class Foreign:
    """What the file is written from; a test changes a part of it and then writes.

    Attributes:
        fields_left_out: how many of the last fields the operator does not have.
        in_spec: of the call ``f(x)`` unless changed.
    """

    engines: list[bytes] = field(default_factory=lambda: [plan(b"engine")])
    abi: int = 10
    info: EngineInfo = field(default_factory=engine_info)
    fields_left_out: int = 0
    torch: str | None = None
    entries: dict[str, bytes] = field(default_factory=dict)
    in_spec: str = json.dumps(
        [1, {"type": "builtins.tuple", "context": "null", "children_spec": [json.loads(IN_SPEC)[1], {
            "type": "builtins.dict", "context": "[]", "children_spec": []}]}]
    )  # fmt: skip

    def text(self) -> dict[str, Any]:
        """The graph."""
        nodes = []
        for index, engine in enumerate(self.engines):
            info = replace(self.info, name=f"engine_{index}", abi_version=self.abi)
            fields = info.fields(base64.b64encode(engine).decode())
            node = placeholder_node(index, list(fields)[: FIELD_COUNT[self.abi] - self.fields_left_out])
            node["metadata"] = {"stack_trace": 'File "/home/builder/model.py", line 1'}
            nodes.append(node)
        names = ["x", *(f"getitem_{index}" for index in range(len(self.engines)))]
        return {
            "graph_module": {
                "graph": {"nodes": nodes, "tensor_values": dict.fromkeys(names, TENSOR)},
                "signature": {
                    "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}],
                    "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": names[-1]}}}}],
                },
                "module_call_graph": [{"fqn": "", "signature": {"in_spec": self.in_spec, "out_spec": OUT_SPEC}}],
            },
            "range_constraints": {},
            "torch_version": self.torch or RELEASES[self.abi],
            "guards_code": ["L['x'].size()[0] == 1"],
        }

    def write(self, path: Path, graph: bytes | None = None) -> Path:
        buffer = io.BytesIO()
        entries = {
            "data/weights/model_weights_config.json": b'{"config": {}}',
            "models/model.json": graph if graph is not None else json.dumps(self.text()).encode(),
            "data/sample_inputs/model.pt": b"",
            "archive_format": b"pt2",
            **self.entries,
        }
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in entries.items():
                file.writestr(f"model/{name}", data)
        path.write_bytes(buffer.getvalue())
        return path
