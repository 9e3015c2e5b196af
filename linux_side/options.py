"""What a build is asked for, as plain data: it crosses a process boundary and goes into the manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolchain.errors import UsageError
from toolchain.manifest.models import StrictModel
from toolchain.targets import Backend, ComputeCapability, Platform

BACKENDS = ("auto", *(backend.value for backend in Backend))

Precision = Literal["fp32", "fp16", "bf16"]


class SizeRange(StrictModel):
    """One optimization profile's range of a dimension."""

    min: Annotated[int, Field(ge=0)]
    opt: Annotated[int, Field(ge=0)]
    max: Annotated[int, Field(ge=1)]


class DynamicDimension(StrictModel):
    """``--dynamic NAME.DIM=MIN:OPT:MAX``; several ranges, separated by commas, are several profiles."""

    input: str
    dim: Annotated[int, Field(ge=0)]
    ranges: list[SizeRange]

    @classmethod
    def parse(cls, text: str) -> DynamicDimension:
        name, _, rest = text.partition("=")
        path, _, dim = name.rpartition(".")
        try:
            ranges = [_range(part) for part in rest.split(",")]
            if not path or not dim.isdigit():
                raise ValueError("no input name and dimension")
        except ValueError:
            raise UsageError(
                f"{text!r} is not a dynamic dimension",
                where="--dynamic",
                remedy="write NAME.DIM=MIN:OPT:MAX, such as x.0=1:4:8; several profiles: x.0=1:1:1,2:8:16",
            ) from None
        return cls(input=path, dim=int(dim), ranges=ranges)

    @property
    def lowest(self) -> int:
        return min(size.min for size in self.ranges)

    @property
    def highest(self) -> int:
        return max(size.max for size in self.ranges)


def _range(text: str) -> SizeRange:
    low, opt, high = (int(part) for part in text.split(":"))
    if not 0 <= low <= opt <= high or high < 1:
        raise ValueError(text)
    return SizeRange(min=low, opt=opt, max=high)


class BuildOptions(StrictModel):
    """Every setting of a build."""

    target: Platform = Field(Platform.WINDOWS_X86_64, strict=False)
    backend: str = "auto"
    gpus: list[str] = Field(default_factory=list)
    precision: Precision | None = None
    tf32: bool = True
    dynamic: list[DynamicDimension] = Field(default_factory=list)
    golden: Annotated[int, Field(ge=0)] = 1
    min_block_size: Annotated[int, Field(ge=1)] = 1
    torch_executed_ops: list[str] = Field(default_factory=list)
    require_full_coverage: bool = False
    allow_no_engine: bool = False
    workspace: Annotated[int, Field(ge=0)] = 0

    @property
    def capabilities(self) -> list[ComputeCapability]:
        return sorted({ComputeCapability.parse(gpu) for gpu in self.gpus})
