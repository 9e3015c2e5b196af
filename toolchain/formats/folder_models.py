"""``engines.json``: what a folder of plain engines holds, for a program that runs them with TensorRT's own API.

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
    """Elements in C order, little-endian, with nothing before or behind them."""

    file: str
    sha256: Sha256
    size: Count = field(description="in bytes")


class RawTensor(RawFile):
    """A tensor in a file."""

    value: str = field(description="the value in the steps that it is")
    name: str = field(description="of the model's input or output")
    dtype: str
    shape: list[Count]


class FolderEngine(RawFile):
    """A serialized engine, as ``IRuntime::deserializeCudaEngine`` takes it."""

    name: str
    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]] = field(description="optimization profiles, by input name")
    requires_output_allocator: bool
    aliased_io: list[Aliased] = field(description="outputs that have to be at their inputs' addresses")


class Step(Record):
    """What is done with values.

    An engine runs, a tensor's size is taken, a whole number is computed of others, a tensor is given other sizes while
    its elements stay where they are, or a tensor is cast.
    """

    kind: Kind
    operator: str | None = field(
        description="of a whole number: add, sub, mul, floordiv, mod, neg, max, min; of a view: reshape, unsqueeze, "
        "squeeze, flatten, same; of a cast: the dtype"
    )
    engine: Count | None = field(description="its index; its values are in the order of its bindings")
    dim: int | None = field(description="whose size is taken")
    inputs: list[str | int] = field(description="values, or whole numbers")
    operands: list[JsonValue] = field(description="of a view, as torch has them; a text is a value, a whole number")
    outputs: list[str]


class FolderValue(Record):
    """One of the model's inputs or outputs; without a value it is a constant."""

    name: str
    value: str | None
    dtype: str | None
    shape: list[Count | DynamicSize] | None
    constant: JsonValue


class FolderState(RawFile):
    """A buffer that the model keeps from call to call, as it is before the first."""

    name: str
    value: str
    dtype: str
    shape: list[Count]
    update: str | None = field(description="the value that it has after a call; none where no call changes it")


class ChangedInput(Record):
    """An input that a call changes."""

    input: str
    update: str


class GoldenSample(Record):
    """A call's inputs, and what the original model gave for them in fp32."""

    inputs: list[RawTensor]
    outputs: list[RawTensor]


class FolderManifest(Record):
    schema_version: Literal[1] = 1
    model: str
    artifact_manifest_sha256: Sha256 = field(description="of the artifact that it was converted from: manifest.json")
    target: TargetSpec
    engines: list[FolderEngine]
    steps: list[Step] = field(description="a call, in order")
    inputs: list[FolderValue]
    outputs: list[FolderValue]
    state: list[FolderState]
    changed_inputs: list[ChangedInput]
    golden: list[GoldenSample]
    tolerance: dict[str, Tolerance] = field(description="of an output's error against golden, by its dtype")

    def text(self) -> bytes:
        """The bytes in the folder."""
        return self.to_json().encode() + b"\n"


def folder_schema_text() -> str:
    """The JSON Schema, as shipped in ``schema/engines-1.json``."""
    from toolchain.manifest.schema import model_of

    schema: dict[str, Any] = model_of(FolderManifest).model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **schema, "title": "trtcross engine folder"}, indent=1, sort_keys=True) + "\n"
