"""What a manifest says of inputs, outputs and their sizes, as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.guards.describe import summary
from toolchain.guards.evaluate import Guards
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec, size_ranges


def size_lines(manifest: Manifest) -> list[str]:
    """What sizes must be beyond their ranges and equal symbols: ``x.2: 64 to 1024, a multiple of 8``."""
    ranges = size_ranges(manifest.inputs)
    return summary(Guards.parse(manifest.guards, ranges).rules, ranges)


def value_text(value: ValueSpec) -> str:
    """An input or output in one line: ``x  float32 [s77=1..8, 16]``."""
    if value.shape is None:
        return f"{value.name} = {value.value!r}"
    return f"{value.name}  {value.dtype} {sizes_text(value.shape)}"


def sizes_text(shape: Sequence[int | DynamicSize]) -> str:
    """A shape, with the range of each size that varies: ``[s77=1..8, 16]``."""
    return f"[{', '.join(str(size) if isinstance(size, int) else _range(size) for size in shape)}]"


def _range(size: DynamicSize) -> str:
    return f"{size.symbol}={size.min}..{'any' if size.max is None else size.max}"
