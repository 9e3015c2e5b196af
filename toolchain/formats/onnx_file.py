"""Writes an artifact as an ONNX file, and proves to the last byte that a file is one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError

from toolchain.artifact import Artifact, Engine
from toolchain.engine.plan_header import HEADER_SIZE
from toolchain.errors import IncompatibleError, MalformedArtifactError, UsageError
from toolchain.formats.onnx_model import (
    COMPATIBILITY_KEY,
    CONTEXT,
    FORMAT,
    FORMAT_KEY,
    GRAPH_KEY,
    LIST_KEY,
    MANIFEST_KEY,
    Context,
    context_nodes,
    engine_entries,
    onnx_model,
)
from toolchain.formats.parts import copy_signature, engine_file_names, write_engine
from toolchain.formats.source import Source
from toolchain.io.atomic import replacing, writing
from toolchain.io.hashing import file_digest
from toolchain.io.places import require_own_place
from toolchain.manifest.models import EngineEntry

EMBEDDED_LIMIT = 1_900_000_000
"""The most bytes of engines in the file itself: a protobuf message ends at 2 GiB, and NVIDIA's plugin accepts less."""

_PROTOBUF_LIMIT = 2**31

Placement = Literal["auto", "embedded", "beside"]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was written or verified.

    Attributes:
        path: the file.
        source: the artifact's manifest and graph.
        embedded: whether the engines are in the file.
        beside: the engines' files, if they are not.
    """

    path: Path
    source: Source
    embedded: bool
    beside: tuple[Path, ...]


def write_onnx(artifact: Artifact, out: Path, engines: Placement = "auto", *, compatibility: bool = True) -> OnnxFile:
    """Writes an artifact as an ONNX model; every engine is checked on the way and stays the same to the byte.

    Args:
        artifact: the artifact to convert.
        out: the path of the file.
        engines: where the engines go; ``auto`` puts them beside the file if they exceed :data:`EMBEDDED_LIMIT`.
        compatibility: as in :func:`.onnx_model`.

    Raises:
        IncompatibleError: ONNX or the plugin cannot express the model, or its engines do not fit into the file.
        MalformedArtifactError: a digest does not match.
        UsageError: a file cannot be written.
    """
    source = Source.of(artifact)
    entries = engine_entries(source)
    size = sum(entry.size for entry in entries)
    if engines == "embedded" and size > EMBEDDED_LIMIT:
        raise IncompatibleError(
            f"its engines are {size} bytes, and an ONNX file holds {EMBEDDED_LIMIT}",
            where=str(artifact.path),
            remedy="put them beside it: --engines beside",
        )
    embedded = engines == "embedded" or (engines == "auto" and size <= EMBEDDED_LIMIT)
    # A conversion that is not possible is refused before anything is written.
    names = [name.encode() for name in engine_file_names(out.stem, len(entries))]
    beside = () if embedded else tuple(out.with_name(name.decode()) for name in names)
    for path in beside:
        require_own_place(path, artifact.path, where="the engine's file")
    headers = [engine.header() for engine in artifact.engines]
    state = {buffer.name: artifact.read_entry(buffer.stored.entry) for buffer in source.state}
    contexts = [Context(name, False, header) for name, header in zip(names, headers, strict=True)]
    model = onnx_model(source, contexts, state, compatibility=compatibility)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise IncompatibleError(
            f"ONNX's own checker refuses the model: {error}", where=str(artifact.path), remedy="report the model"
        ) from error
    if embedded:
        contexts = [
            Context(engine.read(), True, header) for engine, header in zip(artifact.engines, headers, strict=True)
        ]
        model = onnx_model(source, contexts, state, compatibility=compatibility)
    _write(out, model, list(zip(beside, artifact.engines, strict=False)))
    copy_signature(artifact.path, out)
    return OnnxFile(out, source, embedded, beside)


def _write(out: Path, model: onnx.ModelProto, beside: list[tuple[Path, Engine]]) -> None:
    with writing("the file", out, remedy="check the folder and the free disk space, or name another file with -o"):
        for path, engine in beside:
            write_engine(engine, path)
        with replacing(out) as part:
            part.write_bytes(model.SerializeToString(deterministic=True))


def verify_onnx(path: Path) -> OnnxFile:
    """Proves that a file is what its artifact was converted to: it is made again from its parts and compared.

    Raises:
        MalformedArtifactError: trtcross did not write the file, or a byte of it or of its engines was changed.
        IncompatibleError: a later trtcross wrote it.
        UsageError: it cannot be read.
    """
    data = _bytes(path)
    model = _parsed(path, data)
    if model.SerializeToString(deterministic=True) != data:
        raise _changed(path, "it is not written as trtcross writes it")
    del data
    source = _source(path, model)
    source.check()
    entries, nodes = engine_entries(source), context_nodes(model)
    if len(entries) != len(nodes):
        raise _changed(path, f"it has {len(nodes)} engines, and its manifest lists {len(entries)}")
    contexts, beside = [], list[Path]()
    for entry, node in zip(entries, nodes, strict=True):
        context = _context(path, node)
        contexts.append(_checked(path, entry, context, beside))
        if contexts[-1].embedded:  # it has been compared, and its memory is needed
            next(attribute for attribute in node.attribute if attribute.name == CONTEXT).s = b""
    state = dict(_state(path, source, model))
    keyed = any(item.key.startswith(COMPATIBILITY_KEY) for item in model.metadata_props)
    with source.made_again():
        again = onnx_model(source, contexts, state, compatibility=keyed)
    if again.SerializeToString(deterministic=True) != model.SerializeToString(deterministic=True):
        raise _changed(path, "its graph or its metadata is not what follows from the manifest and the graph in it")
    return OnnxFile(path, source, all(context.embedded for context in contexts), tuple(beside))


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _PROTOBUF_LIMIT:
            raise MalformedArtifactError(
                f"it is longer than {_PROTOBUF_LIMIT} bytes, and no ONNX file is", where=str(path)
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the file cannot be read: {error.strerror or error}", where=str(path), remedy="check the path"
        ) from error


def _parsed(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise MalformedArtifactError(
            "it is not an ONNX model, or is damaged", where=str(path), remedy="convert the artifact again"
        ) from error
    return model


def _source(path: Path, model: onnx.ModelProto) -> Source:
    properties = {item.key: item.value for item in model.metadata_props}
    if MANIFEST_KEY not in properties or GRAPH_KEY not in properties:
        raise MalformedArtifactError(
            "trtcross did not write this ONNX model: it carries no manifest",
            where=str(path),
            remedy="give one that `trtcross convert --format onnx` wrote",
        )
    if (version := properties.get(FORMAT_KEY)) != FORMAT:
        raise IncompatibleError(
            f"it is of the form {version!r:.40}, and this trtcross knows {FORMAT!r}",
            where=str(path),
            remedy="install a newer trtcross",
        )
    lists = {
        key.removeprefix(LIST_KEY): value.encode() for key, value in properties.items() if key.startswith(LIST_KEY)
    }
    return Source(str(path), properties[MANIFEST_KEY].encode(), properties[GRAPH_KEY].encode(), lists)


def _context(path: Path, node: onnx.NodeProto) -> tuple[bool, bytes]:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    try:
        return bool(attributes["embed_mode"].i), attributes[CONTEXT].s
    except KeyError as error:
        raise _changed(path, f"the node {node.name[:80]!r} lacks {error}") from error


def _checked(path: Path, entry: EngineEntry, context: tuple[bool, bytes], beside: list[Path]) -> Context:
    """Compares an engine's bytes with the manifest's digest; returns where it is."""
    embedded, data = context
    if embedded:
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise _changed(path, f"the engine {entry.name} is not the one that the manifest lists")
        return Context(b"", True, data[:HEADER_SIZE])
    name = data.decode(errors="replace")
    if name in ("", ".", "..") or any(mark in name for mark in "/\\:"):
        raise _changed(path, f"the engine {entry.name} is placed in {name[:80]!r}, which is not a plain file name")
    file = path.with_name(name)
    try:
        digest = file_digest(file)
        with file.open("rb") as opened:
            header = opened.read(HEADER_SIZE)
    except OSError as error:
        raise MalformedArtifactError(
            f"the engine {entry.name} cannot be read: {error.strerror or error}",
            where=str(file),
            remedy=f"put {name} beside {path.name}: they belong together",
        ) from error
    if digest != entry.sha256:
        raise MalformedArtifactError(
            f"it is not the engine {entry.name} that {path.name} was written with: its digest is different",
            where=str(file),
            remedy="get both files again, or convert the artifact again",
        )
    beside.append(file)
    return Context(data, False, header)


def _state(path: Path, source: Source, model: onnx.ModelProto) -> Iterator[tuple[str, bytes]]:
    """Yields each buffer's name and elements and checks their digests; buffers come first among the initializers."""
    for buffer, tensor in zip(source.state, model.graph.initializer, strict=False):
        if hashlib.sha256(tensor.raw_data).hexdigest() != buffer.file.sha256:
            raise _changed(path, f"the buffer {buffer.name} is not the one that the manifest lists")
        yield buffer.name, tensor.raw_data


def _changed(path: Path, problem: str) -> MalformedArtifactError:
    return MalformedArtifactError(
        f"it was changed since it was written: {problem}", where=str(path), remedy="convert the artifact again"
    )
