"""A precision plan: which half precision a build uses, and what stays in fp32 beyond the rules. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from toolchain.errors import MalformedArtifactError, UsageError
from toolchain.io.atomic import write_text
from toolchain.io.strict_json import load_json
from toolchain.limits import PRECISION_PLAN
from toolchain.strict_model import NodePattern, StrictModel

_REMEDY = 'write {"version": 1, "precision": "fp16", "keep_fp32": ["encoder.layers.3", "aten.softmax"]}'


class PrecisionPlan(StrictModel):
    """The content of ``--precision-plan FILE``, the JSON that ``--precision auto`` writes beside the artifact.

    Attributes:
        precision: the half precision of everything that is not kept in fp32.
        keep_fp32: patterns of module paths and operators that stay in fp32 beyond the rules.
        tolerance: the relative L2 error allowed for outputs; None for the precision's own tolerance.
        reached: the relative L2 error that the search measured on the CPU; information for people only.
    """

    version: Literal[1] = 1
    precision: Literal["fp16", "bf16"]
    keep_fp32: list[NodePattern]
    tolerance: Annotated[float, Field(gt=0)] | None = None
    reached: Annotated[float, Field(ge=0)] | None = None

    @classmethod
    def parse(cls, text: str) -> PrecisionPlan:
        """Reads a plan from a file, or from the text itself if it begins with a brace.

        Raises:
            UsageError: the file cannot be read, or its content is not a plan.
        """
        inline = text.lstrip().startswith("{")
        where = "--precision-plan" if inline else f"--precision-plan {text}"
        try:
            document = load_json(
                text.encode() if inline else Path(text).read_bytes(), where=where, limit=PRECISION_PLAN
            )
            return cls.model_validate(document)
        except (OSError, MalformedArtifactError, ValidationError) as error:
            raise UsageError(f"this is not a precision plan: {_problem(error)}", where=where, remedy=_REMEDY) from error

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        return {"type": "string", "description": "a file, or the plan itself"}

    def __str__(self) -> str:
        return self.model_dump_json(exclude_none=True)

    def write(self, path: Path) -> None:
        """Writes the plan to a file, replacing an existing one.

        Raises:
            OSError: the file cannot be written.
        """
        write_text(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")


def plan_path(artifact: Path) -> Path:
    """Returns where ``--precision auto`` writes an artifact's plan: ``model.precision.json`` beside ``model.pt2``."""
    return artifact.with_suffix(".precision.json")


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors()[0]
        return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
    return str(error).splitlines()[0]
