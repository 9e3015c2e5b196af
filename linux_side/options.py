"""The options of a build, as plain data that is sent to the build process and recorded in the manifest.

Each option is defined here only: ``build()``, the command line and the matrix derive theirs from the fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from linux_side.precision_plan import PrecisionPlan
from toolchain.engine.plan_header import CAPABILITY_BITS
from toolchain.errors import UsageError
from toolchain.guards.grammar import Size
from toolchain.options import Flag, Options, from_text
from toolchain.sizes import parse_size
from toolchain.strict_model import NodePattern, StrictModel
from toolchain.targets import Backend, ComputeCapability, Platform

BACKENDS = ("auto", *(backend.value for backend in Backend))

AUTO_TOLERANCE = 1e-2

Halves = Literal["fp16", "bf16"]
Precision = Literal["fp32", "fp16", "bf16", "auto"]
# The compute capabilities that TensorRT-RTX builds engines for.
GPUS = tuple(map(str, CAPABILITY_BITS.values()))


# The options that a matrix varies from cell to cell, and --many from build to build.
AXES = ("target", "backend", "gpus", "precision")

_MAX_DIGITS = 18  # no tensor has a size with more digits


class SizeRange(StrictModel):
    """The sizes of one dimension in one optimization profile: least, typical and greatest."""

    min: Annotated[int, Field(ge=0)]
    opt: Annotated[int, Field(ge=0)]
    max: Annotated[int, Field(ge=1)]


class DynamicDimension(StrictModel):
    """A dimension that may vary: ``NAME.DIM=MIN:OPT:MAX``, with one comma-separated range for each profile."""

    input: str
    dim: Annotated[int, Field(ge=0)]
    ranges: list[SizeRange]

    @classmethod
    def parse(cls, text: str) -> DynamicDimension:
        """Parses ``NAME.DIM=MIN:OPT:MAX[,MIN:OPT:MAX...]``.

        Raises:
            UsageError: the text has another form, or its sizes are out of order.
        """
        place, equals, rest = text.partition("=")
        name, dot, dim = place.strip().rpartition(".")
        try:
            if not equals:
                raise ValueError("there is no '=' between the dimension and its range")
            if not dot or not name:
                raise ValueError(f"{place.strip()!r} is not an input and a dimension, with a dot between")
            return cls(input=name, dim=_number(dim, "a dimension"), ranges=[_range(part) for part in rest.split(",")])
        except ValueError as error:
            raise UsageError(
                f"{text!r} is not a dynamic dimension: {error}",
                where="--dynamic",
                remedy="write NAME.DIM=MIN:OPT:MAX, such as x.0=1:4:8; several profiles: x.0=1:1:1,2:8:16",
            ) from None

    @model_validator(mode="wrap")
    @classmethod
    def _from_text(cls, value: Any, handler: ModelWrapValidatorHandler[DynamicDimension]) -> DynamicDimension:
        return from_text(cls.parse)(value) if isinstance(value, str) else handler(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        return {"type": "string", "description": "NAME.DIM=MIN:OPT:MAX"}

    def __str__(self) -> str:
        return f"{self.input}.{self.dim}=" + ",".join(f"{size.min}:{size.opt}:{size.max}" for size in self.ranges)

    @property
    def size(self) -> Size:
        """The dimension's size as a term of the guard language."""
        return Size(self.input, self.dim)

    @property
    def lowest(self) -> int:
        """The least size in any profile."""
        return min(size.min for size in self.ranges)

    @property
    def highest(self) -> int:
        """The greatest size in any profile."""
        return max(size.max for size in self.ranges)


def _range(text: str) -> SizeRange:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not three sizes with colons between")
    low, opt, high = (_number(part, "a size") for part in parts)
    if not low <= opt <= high:
        raise ValueError(f"{text!r} is not in order: MIN may not exceed OPT, nor OPT MAX")
    if high < 1:
        raise ValueError(f"{text!r} allows no size but 0")
    return SizeRange(min=low, opt=opt, max=high)


def _number(text: str, what: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        raise ValueError(f"{text!r} is not {what}, which is a number from 0 on")
    return int(text)


def _capability(text: str) -> str:
    return str(ComputeCapability.parse(text))


def _bytes(text: str) -> int:
    return parse_size(text, where="--workspace")


def _backend(name: str) -> str:
    if name not in BACKENDS:
        raise UsageError(
            f"there is no backend {name!r}", where="--backend", remedy="use one of: " + ", ".join(BACKENDS)
        )
    return name


Capability = Annotated[str, AfterValidator(from_text(_capability))]


class BuildOptions(Options):
    """The settings of a build. Each field's description is the help text of its command-line option."""

    target: Annotated[Platform, BeforeValidator(from_text(Platform.parse))] = Field(
        default=Platform.WINDOWS_X86_64, description="Platform: windows-x86_64, linux-x86_64."
    )
    backend: Annotated[str, AfterValidator(from_text(_backend)), Flag(offers=BACKENDS)] = Field(
        default="auto", description="auto, tensorrt-rtx or tensorrt."
    )
    gpus: Annotated[list[Capability], Flag("--gpu", metavar="sm_NN", offers=GPUS)] = Field(
        default_factory=list, description="Compute capability to build for; repeatable."
    )
    precision: Precision | None = Field(
        default=None,
        description="fp16, bf16: halves wherever the rules allow; auto: as little in fp32 as the tolerance needs.",
    )
    tolerance: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="With auto: the relative error allowed for outputs; 0.01 if left out.",
    )
    keep_fp32: Annotated[list[NodePattern], Flag("--keep-fp32", metavar="PATTERN")] = Field(
        default_factory=list, description="A module path or an operator that stays in fp32."
    )
    precision_plan: Annotated[
        PrecisionPlan | None, BeforeValidator(from_text(PrecisionPlan.parse)), Flag(metavar="FILE")
    ] = Field(default=None, description="What stays in fp32, as --precision auto wrote it.")
    task: str | None = Field(
        default=None, description="Task of a Hugging Face model folder: fill-mask, image-classification, ..."
    )
    tf32: Annotated[bool, Flag("--tf32/--no-tf32")] = Field(default=True, description="Let fp32 products use TF32.")
    dynamic: Annotated[list[DynamicDimension], Flag(metavar="NAME.DIM=MIN:OPT:MAX")] = Field(
        default_factory=list, description="A dimension that may vary."
    )
    golden: int = Field(default=1, ge=0, description="Number of golden samples: example, least, greatest, other sizes.")
    min_block_size: int | None = Field(
        default=None, ge=1, description="Fewest operators in an engine; by default a rule skips small, light ones."
    )
    torch_executed_ops: Annotated[list[str], Flag("--torch-executed-op", metavar="OP")] = Field(
        default_factory=list, description="An operator to keep in PyTorch."
    )
    require_full_coverage: bool = Field(default=False, description="Fail if an operator would stay in PyTorch.")
    require_no_torch: bool = Field(default=False, description="Fail if the artifact could not run without PyTorch.")
    allow_no_engine: bool = Field(
        default=False, description="Write a plain program if TensorRT takes no operator of the model."
    )
    workspace: Annotated[int, BeforeValidator(from_text(_bytes)), Flag(metavar="SIZE")] = Field(
        default=0, ge=0, description="TensorRT's scratch memory, as 1GiB or a number of bytes."
    )

    @model_validator(mode="after")
    def _agree(self) -> BuildOptions:
        """Refuses precision options that contradict each other."""
        plan = self.precision_plan
        if self.tolerance is not None and self.precision != "auto":
            raise UsageError(
                "a tolerance is the target of --precision auto, and there is no --precision auto",
                where="--tolerance",
                remedy="add --precision auto, or leave --tolerance out",
            )
        if plan and self.precision not in (None, plan.precision):
            raise UsageError(
                f"the plan is for {plan.precision}, not for {self.precision}",
                where="--precision-plan",
                remedy="leave --precision out",
            )
        return self

    @property
    def halves(self) -> Halves | Literal["auto"] | None:
        """The half precision that products compute in, ``auto`` if a search chooses it, or None for fp32."""
        if self.precision_plan:
            return self.precision_plan.precision
        return None if self.precision == "fp32" else self.precision

    @property
    def relative_l2(self) -> float | None:
        """The relative L2 error allowed for outputs, or None for the precision's own tolerance."""
        if self.precision_plan:
            return self.precision_plan.tolerance
        return (self.tolerance or AUTO_TOLERANCE) if self.precision == "auto" else None

    @property
    def capabilities(self) -> list[ComputeCapability]:
        """The requested compute capabilities, sorted and without duplicates."""
        return sorted({ComputeCapability.parse(gpu) for gpu in self.gpus})
