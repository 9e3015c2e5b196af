"""The manifest: what an artifact is, what it needs, and where each of its engines lies. Schema version 1.

``docs/format.md`` describes every field for people; ``schema/manifest-1.json`` is generated from these models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from toolchain.targets import Backend, Platform

SCHEMA_VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Capability = Annotated[str, Field(pattern=r"^sm_[0-9]{2,3}$")]


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError("not a version") from None
    return text


# What goes into the lines that people copy into a shell.
VersionText = Annotated[str, AfterValidator(_version)]
PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]


class StrictModel(BaseModel):
    """Strict and frozen: an unknown field is refused, and a number is never read from a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Package(StrictModel):
    name: PackageName
    version: VersionText


class Producer(StrictModel):
    """The machine and the versions that made the artifact."""

    trtcross: VersionText
    torch: VersionText
    torch_tensorrt: Package
    tensorrt: Package
    python: str
    os: str
    gpu: str | None
    driver: str | None


class SourceModel(StrictModel):
    """The model that went in."""

    name: str
    digest: Sha256 = Field(description="of the graph and the weights before lowering")


class TargetSpec(StrictModel):
    """Where the artifact shall run."""

    platform: Platform = Field(strict=False)
    compute_capabilities: list[Capability] = Field(description="empty: the plan header does not tell")
    backend: Backend = Field(strict=False)
    runtime: str = Field(description="the exact release of TensorRT or TensorRT-RTX, such as 1.6.1.120")
    abi_version: int = Field(description="of Torch-TensorRT's engine info")


class DynamicSize(StrictModel):
    """A dimension that may vary, bounds included."""

    symbol: str
    min: Count
    max: Count | None


def allows(wanted: int | DynamicSize, size: int) -> bool:
    """Whether a dimension may have a size: the one that is wanted, or one within its range."""
    if isinstance(wanted, int):
        return size == wanted
    return wanted.min <= size and (wanted.max is None or size <= wanted.max)


class ValueSpec(StrictModel):
    """One leaf of the inputs or outputs. A leaf that is no tensor has no dtype, and its value is fixed."""

    name: str
    dtype: str | None = Field(description="such as float32; none for a value that is no tensor")
    device: str | None
    shape: list[Count | DynamicSize] | None
    value: JsonValue = None


class CallSpec(StrictModel):
    """How the leaves are packed, in the form of ``torch.utils._pytree.treespec_dumps``."""

    in_spec: str
    out_spec: str
    argument_names: list[str]


class Span(StrictModel):
    """Where base64 lies: in an entry's data, in bytes."""

    entry: str
    offset: Count
    length: Count


class Binding(StrictModel):
    name: str
    dtype: str
    shape: list[int] = Field(description="-1 where it may vary")


class ShapeRange(StrictModel):
    min: list[Count]
    opt: list[Count]
    max: list[Count]


class PlanFacts(StrictModel):
    """What the plan's own header says."""

    magic: str
    release: str | None
    capability_mask: Count | None


class Aliased(StrictModel):
    output: str
    input: str
    kind: str


class EngineEntry(StrictModel):
    """One engine, in the order of the graph."""

    name: str
    node: str = Field(description="the placeholder node's name in the graph")
    sha256: Sha256 = Field(description="of the raw engine")
    size: Count = Field(description="of the raw engine, in bytes")
    base64: Span
    plan: PlanFacts
    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]] = Field(description="optimization profiles, by input name")
    requires_output_allocator: bool
    aliased_io: list[Aliased]


class FallbackOperator(StrictModel):
    """An operator that stays in PyTorch."""

    operator: str
    count: Count
    device: str


class Coverage(StrictModel):
    """None where it is not known: the artifact was not built by trtcross."""

    operators: Count | None
    in_engines: Count | None


class FileEntry(StrictModel):
    """Size and digest of an entry.

    For the graph (``models/model.json``) the digest is of the text in which each engine's base64 is replaced by
    the engine's token, so that reading an engine checks every byte once and none twice.
    """

    sha256: Sha256
    size: Count


class Tolerance(StrictModel):
    """Bounds on an output's error against golden: both must hold."""

    relative_l2: float = Field(ge=0, description="||got - want|| / ||want||")
    max_relative: float = Field(ge=0, description="max |got - want| / max |want|")


class Golden(StrictModel):
    """Example inputs and the original model's outputs for them (fp32, on the CPU)."""

    entry: Literal["trtcross/golden.safetensors"] = "trtcross/golden.safetensors"
    samples: int = Field(ge=1)
    tolerance: dict[str, Tolerance] = Field(description="by dtype of the output")


# Under this name, in the settings, what is to be said of golden I/O: that it proves little, or why there is none.
GOLDEN_WARNINGS = "golden_warnings"


def golden_warnings(manifest: Manifest) -> list[str]:
    """What whoever built the artifact was told of its golden I/O."""
    texts = manifest.settings.get(GOLDEN_WARNINGS)
    return [str(text) for text in texts] if isinstance(texts, list) else []


class BuildRecord(StrictModel):
    """How the build went. Differs from build to build."""

    seconds: dict[str, float]
    cache_key: str | None
    from_cache: bool


class Manifest(StrictModel):
    schema_version: Literal[1] = 1
    created: AwareDatetime = Field(strict=False)
    stock_readable: bool = Field(description="whether torch.export.load can hold it without trtcross")
    producer: Producer
    model: SourceModel
    settings: dict[str, JsonValue]
    target: TargetSpec
    install: list[str] = Field(description="the lines that set up a machine for this artifact")
    call: CallSpec
    inputs: list[ValueSpec]
    outputs: list[ValueSpec]
    engines: list[EngineEntry]
    fallback: list[FallbackOperator]
    coverage: Coverage
    files: dict[str, FileEntry]
    golden: Golden | None
    build: BuildRecord

    def to_json(self) -> str:
        """The text that lies in the artifact."""
        return self.model_dump_json(indent=1)
