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
    """The rows whose names one of the patterns fits.

    Args:
        patterns: as in a shell, with commas between.
    """
    rows = unique([row for family in FAMILIES for row in importlib.import_module(f"benchmarks.zoo.{family}").ROWS])
    return [row for row in rows if any(fnmatch(row.name, pattern) for pattern in patterns.split(","))]
