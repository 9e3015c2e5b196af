"""Makes ``engines.json`` from the files of an engine folder; each is compared with the artifact's digests."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolchain.checker.golden_header import SAFETENSORS_DTYPES
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import MalformedArtifactError
from toolchain.formats.folder_files import (
    GOLDEN_HEADER_FILE,
    engine_files,
    golden_file,
    header_tensors,
    read_file,
    state_file,
    unreadable,
)
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
from toolchain.formats.source import Source
from toolchain.graph.program import CastStep, EngineStep, Output, Program, SizeStep, ViewStep
from toolchain.graph.views import KINDS
from toolchain.io.hashing import file_digest
from toolchain.limits import GOLDEN_HEADER
from toolchain.manifest.models import ValueSpec

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


def describe(folder: Path, source: Source) -> FolderManifest:
    """Describes the folder's files according to the manifest and the graph.

    Raises:
        MalformedArtifactError: a file is missing, or differs from the one that the manifest lists.
    """
    return _Describer(folder, source).manifest()


class _Describer:
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
            engines=[self._engine(index, name) for index, name in enumerate(engine_files(self._source))],
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
            self._require(state_file(index), buffer.file.sha256, f"the buffer {buffer.name}")
            yield FolderState(
                file=state_file(index),
                sha256=buffer.file.sha256,
                size=buffer.file.size,
                name=buffer.name,
                value=buffer.value,
                dtype=buffer.stored.dtype,
                shape=list(buffer.stored.shape),
                update=buffer.update,
            )

    def _golden(self) -> list[GoldenSample]:
        """Describes the samples; the files together must have the digest of the artifact's golden I/O."""
        golden = self._manifest.golden
        if golden is None:
            return []
        header = read_file(self._folder / GOLDEN_HEADER_FILE, GOLDEN_HEADER.size + 8)
        digest, found = hashlib.sha256(header), dict[str, RawTensor]()
        for key, facts in header_tensors(header, self._source):
            data = read_file(self._folder / golden_file(key), None)
            digest.update(data)
            found[key] = self._golden_tensor(key, facts, data)
        if digest.hexdigest() != self._manifest.files[GOLDEN_ENTRY].sha256:
            raise self._source.damaged("the golden files differ from the artifact's golden I/O")
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
            file=golden_file(key),
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            value=str(value),
            name=specs[place].name,
            dtype=SAFETENSORS_DTYPES[facts["dtype"]],
            shape=facts["shape"],
        )

    def _require(self, name: str, digest: str, what: str) -> None:
        """Checks the digest of a file of the folder.

        Raises:
            MalformedArtifactError: the file is missing or different.
        """
        path = self._folder / name
        try:
            found = file_digest(path)
        except OSError as error:
            raise unreadable(path, error) from error
        if found != digest:
            raise MalformedArtifactError(
                f"it is not {what} that the manifest lists: its digest is different",
                where=str(path),
                remedy="get the folder again, or convert the artifact again",
            )


def _steps(program: Program) -> Iterator[Step]:
    """Yields the steps of a call in order: casts of inputs come first, casts of outputs last."""
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
        elif isinstance(step, CastStep):
            yield _new_step("cast", step.dtype, inputs=[step.tensor], outputs=[step.output])
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
    """Returns the name that an output's value has in the steps."""
    return f"{output.name}.{output.cast}" if output.cast else output.name


def _value(spec: ValueSpec, value: str | None) -> FolderValue:
    return FolderValue(name=spec.name, value=value, dtype=spec.dtype, shape=spec.shape, constant=spec.value)


def _output(spec: ValueSpec, output: Output) -> FolderValue:
    return FolderValue(
        name=spec.name, value=_value_of(output), dtype=spec.dtype, shape=spec.shape, constant=output.constant
    )
