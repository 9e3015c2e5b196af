"""An artifact as a folder: plain engines, golden I/O as raw files, and JSON that says how they are called."""

from __future__ import annotations

import hashlib
import operator
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import SAFETENSORS_DTYPES
from toolchain.container.entry_names import GOLDEN_ENTRY, TENSOR_LISTS
from toolchain.errors import MalformedArtifactError, UsageError
from toolchain.formats.folder_models import (
    ChangedInput,
    FolderEngine,
    FolderManifest,
    FolderState,
    FolderValue,
    GoldenSample,
    Kind,
    RawTensor,
    Step,
)
from toolchain.formats.parts import copy_signature, engine_file_names, write_engine
from toolchain.formats.source import Source
from toolchain.graph.program import EngineStep, Output, Program, SizeStep, ViewStep
from toolchain.graph.views import KINDS
from toolchain.io.hashing import file_digest
from toolchain.io.strict_json import load_json
from toolchain.limits import GOLDEN_HEADER, GRAPH, MANIFEST, TENSOR_LIST
from toolchain.manifest.models import ValueSpec
from toolchain.signing.bundle import signature_path

SIDECAR = "engines.json"
MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "graph.json"
GOLDEN_HEADER_FILE = "golden/header.bin"
_LIST_FILES = dict(zip(TENSOR_LISTS, ("weights.json", "constants.json"), strict=True))
_OPERATORS: dict[Callable[..., int], str] = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.floordiv: "floordiv",
    operator.mod: "mod",
    operator.neg: "neg",
    max: "max",
    min: "min",
}


@dataclass(frozen=True)
class EngineFolder:
    """A folder that is what its artifact makes of it."""

    path: Path
    source: Source
    manifest: FolderManifest


def write_engine_folder(artifact: Artifact, out: Path) -> EngineFolder:
    """Writes an artifact as a folder, whole or not at all; every engine stays the same to the byte.

    Raises:
        IncompatibleError: the model has parts that need PyTorch.
        MalformedArtifactError: a digest does not match.
        UsageError: the folder is there and not empty, or cannot be written.
    """
    source = Source.of(artifact)
    with _new_folder(out) as folder:
        (folder / MANIFEST_FILE).write_bytes(source.manifest_text)
        (folder / GRAPH_FILE).write_bytes(source.graph_text)
        for entry, data in source.lists.items():
            (folder / _LIST_FILES[entry]).write_bytes(data)
        for name, engine in zip(_engine_files(source), artifact.engines, strict=True):
            write_engine(engine, folder / name)
        for index, buffer in enumerate(source.state):
            _write(folder / _state_file(index), artifact.read_entry(buffer.stored.entry))
        if source.manifest.golden:
            header, tensors = _split_golden(artifact.read_entry(GOLDEN_ENTRY), source)
            _write(folder / GOLDEN_HEADER_FILE, header)
            for key, data in tensors:
                _write(folder / _golden_file(key), data)
        described = _Describer(folder, source).manifest()
        (folder / SIDECAR).write_bytes(described.text())
        copy_signature(artifact.path, folder / MANIFEST_FILE)
    return EngineFolder(out, source, described)


def verify_engine_folder(path: Path) -> EngineFolder:
    """Proves that a folder is what its artifact makes of it: each file's digest, and no file besides.

    Raises:
        MalformedArtifactError: a file is missing, changed, or none of its own.
        UsageError: it cannot be read.
    """
    manifest_text = _read(path / MANIFEST_FILE, MANIFEST.size)
    graph_text = _read(path / GRAPH_FILE, GRAPH.size)
    lists = {
        entry: _read(path / name, TENSOR_LIST.size) for entry, name in _LIST_FILES.items() if (path / name).exists()
    }
    source = Source(str(path), manifest_text, graph_text, lists)
    source.check()
    with source.made_again():
        described = _Describer(path, source).manifest()
    if _read(path / SIDECAR, GRAPH.size) != described.text():
        raise source.damaged(f"{SIDECAR} is not what the manifest, the graph and the files make")
    own = {file.file for file in _files(described)}
    own |= {MANIFEST_FILE, GRAPH_FILE, SIDECAR, *(_LIST_FILES[entry] for entry in lists)}
    own |= {GOLDEN_HEADER_FILE} if described.golden else set()
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if strange := found - own - {signature_path(MANIFEST_FILE).name}:
        raise source.damaged(f"it holds {min(strange)[:200]!r}, which is none of its files")
    return EngineFolder(path, source, described)


class _Describer:
    """Makes ``engines.json`` of the files that are there, each compared with the artifact's digests."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder = folder
        self._source = source
        self._manifest = source.manifest

    def manifest(self) -> FolderManifest:
        manifest, program = self._manifest, self._source.program
        return FolderManifest(
            model=manifest.model.name,
            artifact_manifest_sha256=self._source.manifest_sha256,
            target=manifest.target,
            engines=[self._engine(index, name) for index, name in enumerate(_engine_files(self._source))],
            steps=list(_steps(program)),
            inputs=[_value(spec, value) for spec, value in zip(manifest.inputs, program.inputs, strict=True)],
            outputs=[_output(spec, output) for spec, output in zip(manifest.outputs, program.outputs, strict=True)],
            state=list(self._state()),
            changed_inputs=[
                ChangedInput(input=manifest.inputs[index].name, update=value) for index, value in program.input_updates
            ],
            golden=self._golden(),
            tolerance=manifest.golden.tolerance if manifest.golden else {},
        )

    def _engine(self, index: int, name: str) -> FolderEngine:
        entry = self._manifest.engines[index]
        self._require(name, entry.sha256, f"the engine {entry.name}")
        return FolderEngine(
            file=name,
            sha256=entry.sha256,
            size=entry.size,
            name=entry.name,
            inputs=entry.inputs,
            outputs=entry.outputs,
            profiles=entry.profiles,
            requires_output_allocator=entry.requires_output_allocator,
            aliased_io=entry.aliased_io,
        )

    def _state(self) -> Iterator[FolderState]:
        for index, buffer in enumerate(self._source.state):
            self._require(_state_file(index), buffer.file.sha256, f"the buffer {buffer.name}")
            yield FolderState(
                file=_state_file(index),
                sha256=buffer.file.sha256,
                size=buffer.file.size,
                name=buffer.name,
                value=buffer.value,
                dtype=buffer.stored.dtype,
                shape=list(buffer.stored.shape),
                update=buffer.update,
            )

    def _golden(self) -> list[GoldenSample]:
        """The samples, once the files have been compared, together, with the digest of the artifact's golden I/O."""
        golden = self._manifest.golden
        if golden is None:
            return []
        header = _read(self._folder / GOLDEN_HEADER_FILE, GOLDEN_HEADER.size + 8)
        digest, found = hashlib.sha256(header), dict[str, RawTensor]()
        for key, facts in _header_tensors(header, self._source):
            data = _read(self._folder / _golden_file(key), None)
            digest.update(data)
            found[key] = self._golden_tensor(key, facts, data)
        if digest.hexdigest() != self._manifest.files[GOLDEN_ENTRY].sha256:
            raise self._source.damaged("the golden files are not those of the artifact")
        return [
            GoldenSample(
                inputs=[found[f"{sample}.input.{i}"] for i, spec in enumerate(self._manifest.inputs) if spec.dtype],
                outputs=[found[f"{sample}.output.{i}"] for i, spec in enumerate(self._manifest.outputs) if spec.dtype],
            )
            for sample in range(golden.samples)
        ]

    def _golden_tensor(self, key: str, facts: dict[str, Any], data: bytes) -> RawTensor:
        _, kind, index = key.split(".")
        program, place = self._source.program, int(index)
        specs = self._manifest.inputs if kind == "input" else self._manifest.outputs
        value = program.inputs[place] if kind == "input" else _value_of(program.outputs[place])
        return RawTensor(
            file=_golden_file(key),
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            value=str(value),
            name=specs[place].name,
            dtype=SAFETENSORS_DTYPES[facts["dtype"]],
            shape=facts["shape"],
        )

    def _require(self, name: str, digest: str, what: str) -> None:
        """
        Raises:
            MalformedArtifactError: the file is missing, or is another.
        """
        path = self._folder / name
        try:
            found = file_digest(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if found != digest:
            raise MalformedArtifactError(
                f"it is not {what} that the manifest lists: its digest is another",
                where=str(path),
                remedy="get the folder again, or convert the artifact again",
            )


def _steps(program: Program) -> Iterator[Step]:
    """A call, in order: casts of inputs come first, those of outputs last."""
    for cast in program.casts:
        given = str(program.inputs[cast.index])
        yield _new_step("cast", cast.dtype, inputs=[given], outputs=[cast.output])
    for step in program.steps:
        if isinstance(step, EngineStep):
            yield _new_step("engine", engine=step.engine, inputs=list(step.inputs), outputs=list(step.outputs))
        elif isinstance(step, SizeStep):
            yield _new_step("size", dim=step.dim, inputs=[step.tensor], outputs=[step.output])
        elif isinstance(step, ViewStep):
            operands = [list(operand) if isinstance(operand, tuple) else operand for operand in step.operands]
            yield _new_step(
                "view", KINDS[step.new_shape], operands=operands, inputs=[step.tensor], outputs=[step.output]
            )
        else:
            operator_name = _OPERATORS[step.function]
            yield _new_step("arithmetic", operator_name, inputs=list(step.operands), outputs=[step.output])
    for output in dict.fromkeys(program.outputs):
        if output.cast:
            yield _new_step("cast", output.cast, inputs=[str(output.name)], outputs=[str(_value_of(output))])


def _new_step(
    kind: Kind,
    operator_name: str | None = None,
    *,
    inputs: list[str | int] | list[str],
    outputs: list[str],
    engine: int | None = None,
    dim: int | None = None,
    operands: list[Any] | None = None,
) -> Step:
    return Step(
        kind=kind,
        operator=operator_name,
        engine=engine,
        dim=dim,
        inputs=list(inputs),
        operands=operands or [],
        outputs=outputs,
    )


def _value_of(output: Output) -> str | None:
    """The value that an output is, by its name in the steps."""
    return f"{output.name}.{output.cast}" if output.cast else output.name


def _value(spec: ValueSpec, value: str | None) -> FolderValue:
    return FolderValue(name=spec.name, value=value, dtype=spec.dtype, shape=spec.shape, constant=spec.value)


def _output(spec: ValueSpec, output: Output) -> FolderValue:
    return FolderValue(
        name=spec.name, value=_value_of(output), dtype=spec.dtype, shape=spec.shape, constant=output.constant
    )


def _files(manifest: FolderManifest) -> Iterator[FolderEngine | FolderState | RawTensor]:
    yield from manifest.engines
    yield from manifest.state
    for sample in manifest.golden:
        yield from sample.inputs
        yield from sample.outputs


def _engine_files(source: Source) -> list[str]:
    return engine_file_names("model", len(source.manifest.engines))


def _state_file(index: int) -> str:
    return f"state/{index}.bin"


def _golden_file(key: str) -> str:
    return f"golden/{key}.bin"


def _split_golden(data: bytes, source: Source) -> tuple[bytes, Iterator[tuple[str, bytes]]]:
    """A safetensors file's header, with the length before it, and its tensors in the file's order."""
    (length,) = struct.unpack_from("<Q", data)
    header, body = data[: 8 + length], memoryview(data)[8 + length :]
    tensors = ((key, bytes(body[slice(*facts["data_offsets"])])) for key, facts in _header_tensors(header, source))
    return header, tensors


def _header_tensors(header: bytes, source: Source) -> list[tuple[str, dict[str, Any]]]:
    """
    Raises:
        MalformedArtifactError: it is no header of golden I/O.
    """
    document = load_json(header[8:], where=f"{source.where}, golden I/O", limit=GOLDEN_HEADER)
    wanted = {
        f"{sample}.{kind}.{index}"
        for sample in range(source.manifest.golden.samples if source.manifest.golden else 0)
        for kind, specs in (("input", source.manifest.inputs), ("output", source.manifest.outputs))
        for index, spec in enumerate(specs)
        if spec.dtype
    }
    if not isinstance(document, dict) or document.keys() - {"__metadata__"} != wanted:
        raise source.damaged("the golden I/O is not of the tensors that the manifest describes")
    tensors = [(key, facts) for key, facts in document.items() if key in wanted]
    try:
        return sorted(tensors, key=lambda item: item[1]["data_offsets"])
    except (KeyError, TypeError) as error:
        raise source.damaged("the golden I/O's header cannot be read") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _read(path: Path, limit: int | None) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if limit is not None and len(data) > limit:
        raise MalformedArtifactError(f"it is longer than {limit} bytes", where=str(path))
    return data


def _unreadable(path: Path, error: OSError) -> MalformedArtifactError:
    return MalformedArtifactError(
        f"a file of the engine folder cannot be read: {error.strerror or error}",
        where=str(path),
        remedy="give a folder that `trtcross convert --format engine` wrote, with all its files",
    )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that is moved there once it is whole."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "there is something already", where=str(out), remedy="name a folder that is not there, or is empty"
        )
    part = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise UsageError(
            f"the folder cannot be written: {error.strerror or error}",
            where=str(out),
            remedy="check the path and the free disk space, or name another folder with -o",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
