"""The models of ``engines.json``, which describes a folder of engines to a program that runs them with TensorRT.

``schema/engines-1.json`` is generated from these models.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from toolchain.manifest.checks import JsonValue
from toolchain.manifest.models import (
    Aliased,
    Binding,
    Count,
    DynamicSize,
    Sha256,
    ShapeRange,
    TargetSpec,
    Tolerance,
)
from toolchain.manifest.records import Record, field

Kind = Literal["engine", "size", "arithmetic", "view", "cast"]


class RawFile(Record):
    """A file of raw bytes: elements are little-endian and in C order, with nothing before or behind them."""

    file: str
    sha256: Sha256
    size: Count = field(description="in bytes")


class RawTensor(RawFile):
    """A tensor in a file."""

    value: str = field(description="its name among the values of the steps")
    name: str = field(description="the name of the model's input or output")
    dtype: str
    shape: list[Count]


class FolderEngine(RawFile):
    """A serialized engine, as ``IRuntime::deserializeCudaEngine`` takes it."""

    name: str
    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]] = field(description="optimization profiles, by input name")
    requires_output_allocator: bool
    aliased_io: list[Aliased] = field(description="outputs that must have their inputs' addresses")


class Step(Record):
    """One step of a call.

    By its kind, a step runs an engine, takes a tensor's size, computes a whole number from others, gives a tensor a new
    shape without moving its elements, or casts a tensor.
    """

    kind: Kind
    operator: str | None = field(
        description="for arithmetic: add, sub, mul, floordiv, mod, neg, max, min; for a view: reshape, unsqueeze, "
        "squeeze, flatten, same; for a cast: the dtype"
    )
    engine: Count | None = field(description="the engine's index; values are in the order of its bindings")
    dim: int | None = field(description="the dimension whose size is taken")
    inputs: list[str | int] = field(description="values, or whole numbers")
    operands: list[JsonValue] = field(description="a view's operands, as in torch; a string names a whole number")
    outputs: list[str]


class FolderValue(Record):
    """One of the model's inputs or outputs; without a value it is a constant."""

    name: str
    value: str | None
    dtype: str | None
    shape: list[Count | DynamicSize] | None
    constant: JsonValue


class FolderState(RawFile):
    """A buffer that the model keeps from call to call, with its content before the first call."""

    name: str
    value: str
    dtype: str
    shape: list[Count]
    update: str | None = field(description="the value that it has after a call; null if calls do not change it")


class ChangedInput(Record):
    """An input that a call changes, and the value that it then has."""

    input: str
    update: str


class GoldenSample(Record):
    """A call's inputs, and the original model's outputs for them in fp32."""

    inputs: list[RawTensor]
    outputs: list[RawTensor]


class FolderManifest(Record):
    schema_version: Literal[1] = 1
    model: str
    artifact_manifest_sha256: Sha256 = field(
        description="the digest of manifest.json, the manifest of the converted artifact"
    )
    target: TargetSpec
    engines: list[FolderEngine]
    steps: list[Step] = field(description="the steps of a call, in order")
    inputs: list[FolderValue]
    outputs: list[FolderValue]
    state: list[FolderState]
    changed_inputs: list[ChangedInput]
    golden: list[GoldenSample]
    tolerance: dict[str, Tolerance] = field(
        description="the tolerance for an output's error against golden I/O, by the output's dtype"
    )

    def text(self) -> bytes:
        """Returns the bytes of ``engines.json``."""
        return self.to_json().encode() + b"\n"


def folder_schema_text() -> str:
    """Returns the JSON Schema of ``engines.json``, which is shipped as ``schema/engines-1.json``."""
    from toolchain.manifest.schema import model_of

    schema: dict[str, Any] = model_of(FolderManifest).model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **schema, "title": "trtcross engine folder"}, indent=1, sort_keys=True) + "\n"
