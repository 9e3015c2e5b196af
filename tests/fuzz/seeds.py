"""Writes the first inputs of each target's corpus: ``python -m tests.fuzz.seeds``."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path

from tests.fuzz.run import KEPT
from tests.unit.handmade import PLAN_HEADER, Handmade, engine_info, plan
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.container.reader import Container
from toolchain.engine.info import FIELD_COUNT


def seeds() -> dict[str, bytes]:
    """Returns the inputs, by the names of the target and of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Handmade(engines=[plan(b"a"), plan(b"b")]).write(Path(folder) / "a.pt2")
        artifact = path.read_bytes()
        opened = Container(path)
        manifest = opened.read(MANIFEST_ENTRY)
        opened.close()
    document = json.loads(manifest)
    document["inputs"][0]["shape"] = [{"symbol": "s0", "min": 2, "max": 24}]
    guarded = json.dumps({**document, "schema_version": 2, "guards": ["x.0 % 8 == 0", "x.0 != 16"]}).encode()
    fields = [str(field) for field in engine_info().fields("")]
    found = {
        "container/artifact": artifact,
        "container/plain_zip": _plain_zip(),
        "manifest/artifact": manifest,
        "manifest/guards": guarded,
        "guards/one": b"x.2 % 2 == 0",
        "guards/several": b'not (x.0 < 1 or "images.0".1 == 2 * x.1)\nmax(x.1, 3, -x.2) - 1 >= x.2 // 2 and x.2 != 3',
        "plan_header/tensorrt_rtx": PLAN_HEADER,
        "plan_header/tensorrt": b"ftrt" + PLAN_HEADER[4:],
    }
    for abi, count in FIELD_COUNT.items():
        found[f"engine_info/abi_{abi}"] = "\0".join([str(abi), *fields[1:count]]).encode()
    found["engine_info/aliased"] = "\0".join([*fields[:-1], "output0@x@kv_cache_update"]).encode()
    return found


def _plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("model/a", "model/data/b"):
            file.writestr(zipfile.ZipInfo(name), b"x")
    return buffer.getvalue()


if __name__ == "__main__":
    for name, data in seeds().items():
        file = KEPT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
