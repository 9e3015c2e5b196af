"""The models of the manifest: what an artifact is, what it needs, where its engines are. Schema versions 1 and 2.

``docs/ship/format.md`` describes every field for people; ``schema/manifest-*.json`` are generated from these models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from packaging.version import InvalidVersion, Version

from toolchain.guards.bounds import Range
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import LENGTH_LIMIT, Size
from toolchain.manifest.checks import Bounds, FieldError, JsonValue
from toolchain.manifest.records import Record, field
from toolchain.targets import Backend, Platform

SCHEMA_VERSION = 2
GUARD_COUNT = 500
CLASS_COUNT = 1000
CLASS_DEPTH = 50

Sha256 = Annotated[str, Bounds(pattern=r"[0-9a-f]{64}")]
Count = Annotated[int, Bounds(ge=0)]
FieldName = Annotated[str, Bounds(min_length=1, max_length=200)]
# A relative error in L2.
FiniteError = Annotated[float, Bounds(ge=0, finite=True)]
# A pattern that a module path or an operator matches.
NodePattern = Annotated[str, Bounds(min_length=1, max_length=1000)]
GuardText = Annotated[str, Bounds(min_length=1, max_length=LENGTH_LIMIT)]
Capability = Annotated[str, Bounds(pattern=r"sm_[0-9]{2,3}")]


def _require_version(text: str) -> None:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError("not a version") from None


# These go into lines that people copy into a shell, so they are restricted to harmless characters.
VersionText = Annotated[str, Bounds(rule=_require_version)]
PackageName = Annotated[str, Bounds(pattern=r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")]


class Package(Record):
    name: PackageName
    version: VersionText


class Producer(Record):
    """The machine and the versions that made the artifact."""

    trtcross: VersionText
    torch: VersionText
    torch_tensorrt: Package
    tensorrt: Package
    python: str
    os: str
    gpu: str | None
    driver: str | None


class SourceModel(Record):
    """The model that went in."""

    name: str
    digest: Sha256 = field(description="of the graph and the weights before lowering")


class TargetSpec(Record):
    """Where the artifact shall run."""

    platform: Platform
    compute_capabilities: list[Capability] = field(description="empty: the plan header does not tell")
    backend: Backend
    runtime: str = field(description="the exact release of TensorRT or TensorRT-RTX, such as 1.6.1.120")
    abi_version: int = field(description="of Torch-TensorRT's engine info")


class DynamicSize(Record):
    """A dimension that may vary, bounds included."""

    symbol: str
    min: Count
    max: Count | None


def allows(wanted: int | DynamicSize, size: int) -> bool:
    """Whether a dimension of the manifest may have a size: the fixed one, or one within its range."""
    if isinstance(wanted, int):
        return size == wanted
    return wanted.min <= size and (wanted.max is None or size <= wanted.max)


class ValueSpec(Record):
    """One leaf of the inputs or outputs. A leaf that is no tensor has no dtype, and its value is fixed."""

    name: str
    dtype: str | None = field(description="such as float32; none for a value that is no tensor")
    device: str | None
    shape: list[Count | DynamicSize] | None
    value: JsonValue = None


class CallSpec(Record):
    """How the leaves are packed, in the form of ``torch.utils._pytree.treespec_dumps``."""

    in_spec: str
    out_spec: str
    argument_names: list[str]


class ClassSpec(Record):
    """A class in the original model's call, for which readers have a dict or a tuple."""

    spec: Literal["in_spec", "out_spec"]
    path: list[Count] = field(max_length=CLASS_DEPTH, description="its place in the spec, as indices of children")
    name: str = field(pattern=r"[\w.<>]+", max_length=500, description="its module and name, for people")
    fields: list[FieldName] = field(
        max_length=CLASS_COUNT, description="its attributes; one that is not in the dict was None at export"
    )


class Span(Record):
    """Where base64 lies: in an entry's data, in bytes."""

    entry: str
    offset: Count
    length: Count


class Binding(Record):
    name: str
    dtype: str
    shape: list[int] = field(description="-1 where it may vary")


class ShapeRange(Record):
    min: list[Count]
    opt: list[Count]
    max: list[Count]


class PlanFacts(Record):
    """What the plan's own header says."""

    magic: str
    release: str | None
    capability_mask: Count | None


class Aliased(Record):
    output: str
    input: str
    kind: str


class EngineEntry(Record):
    """One engine, in the order of the graph."""

    name: str
    node: str = field(description="the placeholder node's name in the graph")
    sha256: Sha256 = field(description="of the raw engine")
    size: Count = field(description="of the raw engine, in bytes")
    base64: Span
    plan: PlanFacts
    inputs: list[Binding]
    outputs: list[Binding]
    profiles: list[dict[str, ShapeRange]] = field(description="optimization profiles, by input name")
    requires_output_allocator: bool
    aliased_io: list[Aliased]


class FallbackOperator(Record):
    """An operator that stays in PyTorch."""

    operator: str
    count: Count
    device: str


class Coverage(Record):
    """None where it is not known: the artifact was not built by trtcross."""

    operators: Count | None
    in_engines: Count | None


class FileEntry(Record):
    """Size and digest of an entry.

    For the graph (``models/model.json``) the digest is of the text in which each engine's base64 is replaced by
    the engine's token, so that reading an engine checks every byte once and none twice.
    """

    sha256: Sha256
    size: Count


class Tolerance(Record):
    """Bounds on an output's error against golden: both must hold."""

    relative_l2: float = field(ge=0, description="||got - want|| / ||want||")
    max_relative: float = field(ge=0, description="max |got - want| / max |want|")


class Golden(Record):
    """Example inputs and the original model's outputs for them (fp32, on the CPU)."""

    entry: Literal["trtcross/golden.safetensors"] = "trtcross/golden.safetensors"
    samples: int = field(ge=1)
    tolerance: dict[str, Tolerance] = field(description="by dtype of the output")


FOREIGN = "saved_by"
"""The setting that names the program that saved an artifact which trtcross did not build."""
TRUST = "trust"
"""The setting in which ``convert`` records why a foreign file was trusted, if a reason was needed."""

# The setting that holds warnings about golden I/O: that it proves little, or why there is none.
GOLDEN_WARNINGS = "golden_warnings"


def golden_warnings(manifest: Manifest) -> list[str]:
    """Returns the build's warnings about golden I/O."""
    return _texts(manifest, GOLDEN_WARNINGS)


# The setting that names the precision in which golden outputs of a model in halves were computed.
GOLDEN_PRECISION = "golden_precision"


def golden_text(manifest: Manifest) -> str:
    """Returns the number of golden samples and, of a model in halves, the precision in which they were computed."""
    if manifest.golden is None:
        return "none"
    precision = manifest.settings.get(GOLDEN_PRECISION)
    return f"{manifest.golden.samples} sample(s)" + (f", computed in {precision}" if precision else "")


# The setting that holds warnings about operators that stay in PyTorch because TensorRT refused them.
FALLBACK_WARNINGS = "fallback_warnings"


def fallback_warnings(manifest: Manifest) -> list[str]:
    """Returns the build's warnings about operators that TensorRT refused."""
    return _texts(manifest, FALLBACK_WARNINGS)


def _texts(manifest: Manifest, name: str) -> list[str]:
    texts = manifest.settings.get(name)
    return [str(text) for text in texts] if isinstance(texts, list) else []


class PrecisionRecord(Record):
    """The operators that compute in half precision, and the error that this causes."""

    halves: Literal["fp16", "bf16"]
    in_halves: Count = field(description="the number of operators of the exported graph that compute in half precision")
    in_fp32: dict[str, Count] = field(
        max_length=CLASS_COUNT, description="the number of operators that stay in fp32, by reason"
    )
    keep_fp32: list[NodePattern] = field(
        max_length=CLASS_COUNT, description="patterns of what stays in fp32 beyond the rules"
    )
    errors: list[FiniteError | None] = field(
        description="for each output, the worst relative L2 error against fp32 over the golden samples, measured on "
        "the CPU; null if it is not known"
    )
    warnings: list[str] = field(max_length=CLASS_COUNT, description="the build's warnings about precision")


class BuildRecord(Record):
    """How the build went. Differs from build to build."""

    seconds: dict[str, float]
    cache_key: str | None
    from_cache: bool


def build_warnings(manifest: Manifest) -> list[str]:
    """Returns all warnings of the build: about golden I/O, precision and operators that TensorRT refused."""
    precision = manifest.precision.warnings if manifest.precision else []
    return [*golden_warnings(manifest), *precision, *fallback_warnings(manifest)]


def size_ranges(inputs: Sequence[ValueSpec]) -> dict[Size, Range]:
    """Returns the range of each size that guards may name: every dimension of each input with a unique name."""
    names = Counter(spec.name for spec in inputs)
    return {
        Size(spec.name, dim): (size.min, size.max) if isinstance(size, DynamicSize) else (size, size)
        for spec in inputs
        if names[spec.name] == 1
        for dim, size in enumerate(spec.shape or [])
    }


class Manifest(Record):
    created: datetime
    stock_readable: bool = field(description="whether torch.export.load can hold it without trtcross")
    producer: Producer
    model: SourceModel
    settings: dict[str, JsonValue]
    target: TargetSpec
    install: list[str] = field(description="the lines that set up a machine for this artifact")
    call: CallSpec
    inputs: list[ValueSpec]
    outputs: list[ValueSpec]
    engines: list[EngineEntry]
    fallback: list[FallbackOperator]
    coverage: Coverage
    files: dict[str, FileEntry]
    golden: Golden | None
    build: BuildRecord
    # Fields of schema version 2, listed in SINCE. Their defaults are neutral, so a reader need not check the version.
    guards: list[GuardText] = field(
        default=[],
        max_length=GUARD_COUNT,
        description="conditions on the inputs' sizes beyond ranges and equal symbols",
    )

    classes: list[ClassSpec] = field(
        default=[],
        max_length=CLASS_COUNT,
        description="the named tuples, dataclasses and similar classes of the call",
    )

    precision: PrecisionRecord | None = field(
        default=None, description="null: every operator has the precision of the exported model"
    )

    @property
    def schema_version(self) -> int:
        """The lowest version that has every field in use, so that older readers can read what they understand."""
        return max([1, *(SINCE[name] for name in self._additions())])

    def _additions(self) -> list[str]:
        specs = self.field_specs()
        return [name for name in SINCE if getattr(self, name) != specs[name].default]

    def _check_whole(self) -> None:
        Guards.parse(self.guards, size_ranges(self.inputs))
        # A figure for each output, or for none.
        if self.precision and len(self.precision.errors) not in (0, len(self.outputs)):
            raise FieldError(f"it has {len(self.precision.errors)} figures for {len(self.outputs)} outputs").within(
                "precision", "errors"
            )

    def _written_fields(self) -> dict[str, Any]:
        unused = SINCE.keys() - set(self._additions())
        written = {name: value for name, value in super()._written_fields().items() if name not in unused}
        return {"schema_version": self.schema_version, **written}

    @classmethod
    def _fields_of(cls, document: dict[str, Any]) -> dict[str, Any]:
        if "schema_version" not in document:
            return document
        version = document["schema_version"]
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise FieldError(f"schema_version is not from 1 to {SCHEMA_VERSION}")
        if newer := next((name for name, since in SINCE.items() if since > version and name in document), None):
            raise FieldError(f"schema version {version} has no field {newer!r}")
        return {name: value for name, value in document.items() if name != "schema_version"}


# The schema version that introduced a field, for the fields that version 1 does not have.
SINCE = {"guards": 2, "classes": 2, "precision": 2}
