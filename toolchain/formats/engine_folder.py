"""Writes and verifies an artifact as a folder: plain engines, raw golden I/O, and JSON that describes a call."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import check_golden_header
from toolchain.container.entry_names import GOLDEN_ENTRY, TENSOR_LISTS
from toolchain.errors import UsageError
from toolchain.formats.folder_description import describe
from toolchain.formats.folder_files import (
    GOLDEN_HEADER_FILE,
    engine_files,
    golden_file,
    read_file,
    split_golden,
    state_file,
)
from toolchain.formats.folder_models import FolderEngine, FolderManifest, FolderState, RawTensor
from toolchain.formats.parts import copy_signature, write_engine
from toolchain.formats.source import Source
from toolchain.io.atomic import writing
from toolchain.limits import GRAPH, MANIFEST, TENSOR_LIST
from toolchain.signing.bundle import signature_path

SIDECAR = "engines.json"
MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "graph.json"
_LIST_FILES = dict(zip(TENSOR_LISTS, ("weights.json", "constants.json"), strict=True))


@dataclass(frozen=True)
class EngineFolder:
    """An engine folder that was written or verified."""

    path: Path
    source: Source
    manifest: FolderManifest


def write_engine_folder(artifact: Artifact, out: Path) -> EngineFolder:
    """Writes an artifact as a folder, completely or not at all; every engine stays the same to the byte.

    Raises:
        IncompatibleError: the model has parts that need PyTorch.
        MalformedArtifactError: a digest does not match, or the golden I/O differs from the manifest's description.
        UsageError: the folder exists and is not empty, or cannot be written.
    """
    source = Source.of(artifact)
    check_golden_header(artifact)
    with _new_folder(out) as folder:
        (folder / MANIFEST_FILE).write_bytes(source.manifest_text)
        (folder / GRAPH_FILE).write_bytes(source.graph_text)
        for entry, data in source.lists.items():
            (folder / _LIST_FILES[entry]).write_bytes(data)
        for name, engine in zip(engine_files(source), artifact.engines, strict=True):
            write_engine(engine, folder / name)
        for index, buffer in enumerate(source.state):
            _write(folder / state_file(index), artifact.read_entry(buffer.stored.entry))
        with source.made_again():
            if source.manifest.golden:
                header, tensors = split_golden(artifact.read_entry(GOLDEN_ENTRY), source)
                _write(folder / GOLDEN_HEADER_FILE, header)
                for key, data in tensors:
                    _write(folder / golden_file(key), data)
            described = describe(folder, source)
        (folder / SIDECAR).write_bytes(described.text())
        copy_signature(artifact.path, folder / MANIFEST_FILE)
    return EngineFolder(out, source, described)


def verify_engine_folder(path: Path) -> EngineFolder:
    """Proves that a folder is what its artifact was converted to: every digest matches, and no file is added.

    Raises:
        MalformedArtifactError: a file is missing, unreadable, changed or added.
        IncompatibleError: the model has parts that need PyTorch.
    """
    manifest_text = read_file(path / MANIFEST_FILE, MANIFEST.size)
    graph_text = read_file(path / GRAPH_FILE, GRAPH.size)
    lists = {
        entry: read_file(path / name, TENSOR_LIST.size) for entry, name in _LIST_FILES.items() if (path / name).exists()
    }
    source = Source(str(path), manifest_text, graph_text, lists)
    source.check()
    with source.made_again():
        described = describe(path, source)
    if read_file(path / SIDECAR, GRAPH.size) != described.text():
        raise source.damaged(f"{SIDECAR} is not what follows from the manifest, the graph and the files")
    own = {file.file for file in _files(described)}
    own |= {MANIFEST_FILE, GRAPH_FILE, SIDECAR, *(_LIST_FILES[entry] for entry in lists)}
    own |= {GOLDEN_HEADER_FILE} if described.golden else set()
    # A link to a folder counts as an added file, and is not followed.
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_symlink() or not file.is_dir()}
    if strange := found - own - {signature_path(MANIFEST_FILE).name}:
        raise source.damaged(f"it holds {min(strange)[:200]!r}, which is not one of its files")
    return EngineFolder(path, source, described)


def _files(manifest: FolderManifest) -> Iterator[FolderEngine | FolderState | RawTensor]:
    yield from manifest.engines
    yield from manifest.state
    for sample in manifest.golden:
        yield from sample.inputs
        yield from sample.outputs


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Makes a folder beside ``out`` and moves it there when the block ends without an exception."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "there is something already", where=str(out), remedy="name a folder that does not exist, or is empty"
        )
    part = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with writing(
            "the folder", out, remedy="check the path and the free disk space, or name another folder with -o"
        ):
            part.mkdir()
            yield part
            if out.exists():
                out.rmdir()
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
