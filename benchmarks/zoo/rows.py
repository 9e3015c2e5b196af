"""Collects the rows of all families."""

from __future__ import annotations

import importlib
from fnmatch import fnmatch

from benchmarks.zoo.row import Row, unique

FAMILIES = (
    "classification", "segmentation", "restoration", "interpolation", "encoders", "decoders", "diffusion", "audio",
    "points",
)  # fmt: skip
# The rows that CI builds: small, quick, and of every kind.
FIXED = (
    "convnext", "swin", "mobilenetv3", "segformer", "real-esrgan-compact", "rife", "bert", "deberta-v2", "llama",
    "sd-unet", "hifi-gan", "dgcnn",
)  # fmt: skip


def zoo(patterns: str = "*") -> list[Row]:
    """Returns the rows whose names match a pattern, in the order of the patterns.

    Args:
        patterns: shell patterns, separated by commas.
    """
    rows = unique([row for family in FAMILIES for row in importlib.import_module(f"benchmarks.zoo.{family}").ROWS])
    found = [row for pattern in patterns.split(",") for row in rows if fnmatch(row.name, pattern)]
    return list({row.name: row for row in found}.values())
