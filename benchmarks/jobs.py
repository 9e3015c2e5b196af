"""The jobs of the container's benchmark: saving and loading by Torch-TensorRT, by us, and by the floor under both.

Each public function runs in a process of its own (see :mod:`benchmarks.measure`). It prepares, does the same with a
tiny engine so that no measurement includes one-time imports, and returns the call and a function that describes its
result.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pybase64

from benchmarks import synthetic
from toolchain import open_artifact
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.graph.writer import engine_from_buffer
from toolchain.io.base64_stream import RAW_CHUNK, TEXT_CHUNK

Job = tuple[Callable[[], Any], Callable[[Any], Any]]
TINY = 4096


def save_upstream(path: str, size: str) -> Job:
    """Saves by the legacy exporter and ``torch.export.save``, the one way of Torch-TensorRT's own that works."""
    return _saving(_upstream_saver, path, int(size))


def save_ours(path: str, size: str) -> Job:
    """Saves the same compiled module as an artifact that is synced to disk."""
    return _saving(_our_saver, path, int(size))


def save_floor(path: str, size: str) -> Job:
    """Computes SHA-256, base64 and CRC-32 and writes, one after the other for each chunk, and syncs at the end."""
    engine = synthetic.engine_bytes(int(size))

    def call() -> None:
        digest, crc, view = hashlib.sha256(), 0, memoryview(engine)
        with Path(path).open("wb", buffering=0) as file:
            for start in range(0, len(view), RAW_CHUNK):
                chunk = view[start : start + RAW_CHUNK]
                digest.update(chunk)
                text = pybase64.b64encode(chunk)
                crc = zlib.crc32(text, crc)
                file.write(text)
            os.fsync(file.fileno())

    return call, lambda _: None


def load_upstream(path: str, tiny: str) -> Job:
    """Loads by ``torch.export.load``, and decodes as ``replace_execute_engine_no_op_node`` does.

    The engine's constructor is left out, because it needs a GPU.
    """
    synthetic.import_upstream()
    _load_upstream(tiny)
    _read_ahead(path)
    return lambda: _load_upstream(path), _digest


def load_ours(path: str, tiny: str) -> Job:
    """Reads the engine's bytes and checks their digest."""
    _read_engine(tiny)
    _read_ahead(path)
    return lambda: _read_engine(path), _digest


def load_ours_program(path: str, tiny: str) -> Job:
    """Reads the whole program as ``load`` does, with every digest checked; the engine stays bytes."""
    from toolchain.targets import Backend
    from windows_side.loader.runtime_library import load_runtime

    load_runtime(Backend.TENSORRT_RTX)
    _load_program(tiny)
    _read_ahead(path)
    return lambda: _load_program(path), _digest


def load_floor(path: str) -> Job:
    """Reads, decodes base64 and computes SHA-256, one after the other for each chunk; nothing is kept."""
    return _load_floor(path, keep=False)


def load_floor_kept(path: str) -> Job:
    """Does what :func:`load_floor` does, and keeps the bytes."""
    return _load_floor(path, keep=True)


def _load_floor(path: str, *, keep: bool) -> Job:
    with open_artifact(path) as artifact:
        span = artifact.engines[0].entry.base64
        offset = artifact.container.entry(GRAPH_ENTRY).offset + span.offset

    _read_ahead(path)

    def call() -> bytes:
        digest, kept, left = hashlib.sha256(), [], span.length
        with Path(path).open("rb", buffering=0) as file:
            file.seek(offset)
            while left:
                text = file.read(min(TEXT_CHUNK, left))
                left -= len(text)
                raw = pybase64.b64decode(text, validate=True)
                digest.update(raw)
                if keep:
                    kept.append(raw)
        return b"".join(kept)

    return call, _digest if keep else lambda _: None


def _read_ahead(path: str) -> None:
    """Reads the file into the page cache, so that every job finds it there however it was written."""
    with Path(path).open("rb", buffering=0) as file:
        while file.read(TEXT_CHUNK):
            pass


def _saving(save: Callable[[bytes], Callable[[str], None]], path: str, size: int) -> Job:
    synthetic.import_upstream()
    engine = synthetic.engine_bytes(size)
    _save_tiny(save)
    call = save(engine)
    return lambda: call(path), lambda _: _digest(engine)


def _upstream_saver(engine: bytes) -> Callable[[str], None]:
    module = synthetic.compiled_module([synthetic.upstream_module("synthetic", engine)])
    return lambda path: _save_upstream(module, path)


def _our_saver(engine: bytes) -> Callable[[str], None]:
    module = synthetic.compiled_module([synthetic.our_module("synthetic", engine_from_buffer(engine))])
    return lambda path: _save_ours(module, path)


def _save_upstream(module: Any, path: str) -> None:
    import torch
    from torch_tensorrt.dynamo._exporter import export

    program = export(module, cross_compile_module=True, use_legacy_exporter=True)
    torch.export.save(program, path)


def _save_ours(module: Any, path: str) -> None:
    with tempfile.TemporaryDirectory() as spool:
        synthetic.save(module, Path(path), Path(spool))


def _load_upstream(path: str) -> bytes:
    import torch
    from torch_tensorrt.dynamo.runtime._TorchTensorRTModule import ENGINE_IDX

    program = torch.export.load(path)
    for node in program.graph.nodes:
        if "no_op_placeholder_for_execute_engine" in node.name:
            engine_bytes = list(node.args[1:])[ENGINE_IDX]
            return base64.b64decode(engine_bytes.encode("utf-8"))
    raise RuntimeError("no engine was found")


def _read_engine(path: str) -> bytes:
    with open_artifact(path) as artifact:
        return artifact.engines[0].read()


def _load_program(path: str) -> bytes:
    import torch

    from windows_side.loader.loading import load_program

    taken: list[bytes] = []

    def take(fields: list[Any]) -> Any:
        taken.append(fields[3])
        return torch.nn.Identity()

    with open_artifact(path) as artifact:
        load_program(artifact, torch.device("cpu"), None, take)
    return taken[0]


def _save_tiny(save: Callable[[bytes], Callable[[str], None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(synthetic.engine_bytes(TINY))(f"{folder}/tiny.pt2")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
