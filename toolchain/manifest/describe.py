"""Describes a manifest's inputs, outputs and sizes for people."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.guards.describe import summary
from toolchain.guards.evaluate import Guards
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec, size_ranges


def size_lines(manifest: Manifest) -> list[str]:
    """Returns lines about guards, the conditions beyond ranges and symbols: ``x.2: 64 to 1024, a multiple of 8``."""
    ranges = size_ranges(manifest.inputs)
    return summary(Guards.parse(manifest.guards, ranges).rules, ranges)


def value_text(value: ValueSpec) -> str:
    """Formats an input or output as one line: ``x  float32 [s77=1..8, 16]``."""
    if value.shape is None:
        return f"{value.name} = {value.value!r}"
    return f"{value.name}  {value.dtype} {sizes_text(value.shape)}"


def sizes_text(shape: Sequence[int | DynamicSize]) -> str:
    """Formats a shape, with the range of each size that varies: ``[s77=1..8, 16]``."""
    return f"[{', '.join(str(size) if isinstance(size, int) else _range(size) for size in shape)}]"


def _range(size: DynamicSize) -> str:
    return f"{size.symbol}={size.min}..{'any' if size.max is None else size.max}"
