"""All rows."""

from __future__ import annotations

import importlib
from fnmatch import fnmatch

from benchmarks.zoo.row import Row, unique

FAMILIES = ("encoders", "decoders", "diffusion", "segmentation", "restoration", "classification")
# Small, quick and of every kind: what CI builds.
FIXED: tuple[str, ...] = ()


def zoo(patterns: str = "*") -> list[Row]:
    """The rows whose names one of the patterns fits.

    Args:
        patterns: as in a shell, with commas between.
    """
    rows = unique([row for family in FAMILIES for row in importlib.import_module(f"benchmarks.zoo.{family}").ROWS])
    return [row for row in rows if any(fnmatch(row.name, pattern) for pattern in patterns.split(","))]
