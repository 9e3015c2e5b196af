"""All rows."""

from __future__ import annotations

import importlib
from fnmatch import fnmatch

from benchmarks.zoo.row import Row, unique

FAMILIES = (
    "classification", "segmentation", "restoration", "interpolation", "encoders", "decoders", "diffusion", "audio",
    "points",
)  # fmt: skip
# Small, quick and of every kind: what CI builds.
FIXED = (
    "convnext", "swin", "mobilenetv3", "segformer", "real-esrgan-compact", "rife", "bert", "deberta-v2", "llama",
    "sd-unet", "hifi-gan", "dgcnn",
)  # fmt: skip


def zoo(patterns: str = "*") -> list[Row]:
    """The rows whose names one of the patterns fits, in the order of the patterns.

    Args:
        patterns: as in a shell, with commas between.
    """
    rows = unique([row for family in FAMILIES for row in importlib.import_module(f"benchmarks.zoo.{family}").ROWS])
    found = [row for pattern in patterns.split(",") for row in rows if fnmatch(row.name, pattern)]
    return list({row.name: row for row in found}.values())
