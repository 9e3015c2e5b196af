"""The base class of what pydantic reads: options, plans, specifications, records of runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A pattern that a module path or an operator matches.
NodePattern = Annotated[str, Field(min_length=1, max_length=1000)]


class StrictModel(BaseModel):
    """Strict and frozen: an unknown field is refused, and a number is never read from a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
