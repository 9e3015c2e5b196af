"""Writes files as Torch-TensorRT's own saver does, by hand, for tests without torch."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.unit.handmade import IN_SPEC, OUT_SPEC, engine_info, placeholder_node, plan
from toolchain.engine.info import FIELD_COUNT, EngineInfo

# A pickle of Torch-TensorRT 2.14: its settings, and the shapes of an engine with a dynamic batch.
UPSTREAM_METADATA = (
    "gASVVQcAAAAAAAB9lCiMCHNldHRpbmdzlIwfdG9yY2hfdGVuc29ycnQuZHluYW1vLl9zZXR0aW5nc5SME0NvbXBpbGF0aW9uU2V0dGluZ3OUk5Qp"
    "gZR9lCiMDndvcmtzcGFjZV9zaXpllEsAjA5taW5fYmxvY2tfc2l6ZZRLAYwSdG9yY2hfZXhlY3V0ZWRfb3BzlI+UKIwddG9yY2gub3BzLmF0ZW4u"
    "Y3Vtc3VtLmRlZmF1bHSUkIwbcGFzc190aHJvdWdoX2J1aWxkX2ZhaWx1cmVzlImMD21heF9hdXhfc3RyZWFtc5ROjBJ2ZXJzaW9uX2NvbXBhdGli"
    "bGWUiYwSb3B0aW1pemF0aW9uX2xldmVslE6MD3RydW5jYXRlX2RvdWJsZZSIjBl1c2VfY29tcGxleF9kZWNvbXBvc2l0aW9ulIiMFHVzZV9mYXN0"
    "X3BhcnRpdGlvbmVylIiMImVuYWJsZV9leHBlcmltZW50YWxfZGVjb21wb3NpdGlvbnOUiYwGZGV2aWNllIwWdG9yY2hfdGVuc29ycnQuX0Rldmlj"
    "ZZSMBkRldmljZZSTlCmBlH2UKIwGZ3B1X2lklEsAjAtkZXZpY2VfdHlwZZSMFXRvcmNoX3RlbnNvcnJ0Ll9lbnVtc5SMCkRldmljZVR5cGWUk5RL"
    "AoWUUpR1YowYcmVxdWlyZV9mdWxsX2NvbXBpbGF0aW9ulImMDGRpc2FibGVfdGYzMpSJjBxhc3N1bWVfZHluYW1pY19zaGFwZV9zdXBwb3J0lImM"
    "DnNwYXJzZV93ZWlnaHRzlImMEWVuZ2luZV9jYXBhYmlsaXR5lGgcjBBFbmdpbmVDYXBhYmlsaXR5lJOUSwGFlFKUjBRudW1fYXZnX3RpbWluZ19p"
    "dGVyc5RLAYwNZGxhX3NyYW1fc2l6ZZRKAAAQAIwTZGxhX2xvY2FsX2RyYW1fc2l6ZZRKAAAAQIwUZGxhX2dsb2JhbF9kcmFtX3NpemWUSgAAACCM"
    "BmRyeXJ1bpSJjBNoYXJkd2FyZV9jb21wYXRpYmxllImMEXRpbWluZ19jYWNoZV9wYXRolIwxL3RtcC90b3JjaF90ZW5zb3JydF9lbmdpbmVfY2Fj"
    "aGUvdGltaW5nX2NhY2hlLmJpbpSMEGxhenlfZW5naW5lX2luaXSUiYwTY2FjaGVfYnVpbHRfZW5naW5lc5SJjBRyZXVzZV9jYWNoZWRfZW5naW5l"
    "c5SJjAx1c2VfZnAzMl9hY2OUiYwecmVmaXRfaWRlbnRpY2FsX2VuZ2luZV93ZWlnaHRzlImMFHN0cmlwX2VuZ2luZV93ZWlnaHRzlImMEWltbXV0"
    "YWJsZV93ZWlnaHRzlIiMF2VuYWJsZV93ZWlnaHRfc3RyZWFtaW5nlImMIGVuYWJsZV9jcm9zc19jb21waWxlX2Zvcl93aW5kb3dzlIiMGXRpbGlu"
    "Z19vcHRpbWl6YXRpb25fbGV2ZWyUjARub25llIwTbDJfbGltaXRfZm9yX3RpbGluZ5RK/////4wadXNlX2Rpc3RyaWJ1dGVkX21vZGVfdHJhY2WU"
    "iYwVb2ZmbG9hZF9tb2R1bGVfdG9fY3B1lIiMD2VuYWJsZV9hdXRvY2FzdJSJjBthdXRvY2FzdF9sb3dfcHJlY2lzaW9uX3R5cGWUTowXYXV0b2Nh"
    "c3RfZXhjbHVkZWRfbm9kZXOUj5SMFWF1dG9jYXN0X2V4Y2x1ZGVkX29wc5SPlIwdYXV0b2Nhc3RfbWF4X291dHB1dF90aHJlc2hvbGSUTQACjB9h"
    "dXRvY2FzdF9tYXhfZGVwdGhfb2ZfcmVkdWN0aW9ulE6MH2F1dG9jYXN0X2NhbGlicmF0aW9uX2RhdGFsb2FkZXKUTowcZW5hYmxlX3Jlc291cmNl"
    "X3BhcnRpdGlvbmluZ5SJjBFjcHVfbWVtb3J5X2J1ZGdldJROjB5keW5hbWljYWxseV9hbGxvY2F0ZV9yZXNvdXJjZXOUiYwTZGVjb21wb3NlX2F0"
    "dGVudGlvbpSJjCFkaXNhYmxlZF9jb25zdGFudF9mb2xkX2V4Y2x1c2lvbnOUj5SME2F0dG5fYmlhc19pc19jYXVzYWyUiIwbZmFsbGJhY2tfZGF0"
    "YV9kZXBlbmRlbnRfb3BzlIl1YowOaW5vdXRfc3ltZXhwcnOUfZQojAZpbnB1dHOUXZQofZQojAtzaGFwZV9leHByc5RdlCiMEXN5bXB5LmNvcmUu"
    "c3ltYm9slIwGU3ltYm9slJOUjANzMzOUhZR9lCiMCHBvc2l0aXZllIiMB2ludGVnZXKUiHWSlEsEZYwFZHR5cGWUjAV0b3JjaJSMB2Zsb2F0MzKU"
    "k5SMBG5hbWWUjAF4lHV9lChoVl2UKGhgSwNlaGFoZGhljANkXzCUdWWMB291dHB1dHOUXZQofZQoaFZdlChoYEsDZWhhaGR1fZQoaFZdlChoYEsD"
    "ZWhhaGR1ZXWMGm91dHB1dF90ZW5zb3JzX2FyZV91bm93bmVklIl1Lg=="
)

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
    """The parts of a file; a test changes some of them and then writes the file.

    Attributes:
        fields_left_out: the number of last fields that the operator lacks.
        in_spec: the structure of the call; that of ``f(x)`` unless changed.
    """

    engines: list[bytes] = field(default_factory=lambda: [plan(b"engine")])
    abi: int = 10
    info: EngineInfo = field(default_factory=lambda: replace(engine_info(), metadata=UPSTREAM_METADATA))
    fields_left_out: int = 0
    torch: str | None = None
    entries: dict[str, bytes] = field(default_factory=dict)
    in_spec: str = json.dumps(
        [1, {"type": "builtins.tuple", "context": "null", "children_spec": [json.loads(IN_SPEC)[1], {
            "type": "builtins.dict", "context": "[]", "children_spec": []}]}]
    )  # fmt: skip

    def text(self) -> dict[str, Any]:
        """Returns the graph's JSON document."""
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
