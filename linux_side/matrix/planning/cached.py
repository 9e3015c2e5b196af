"""Whether the build cache holds a cell's artifact, as far as that can be told without importing torch."""

from __future__ import annotations

from linux_side.cache.key import file_key
from linux_side.cache.store import BuildCache
from linux_side.matrix.records import CellRecord
from linux_side.matrix.spec.cells import Cell


def in_cache(cell: Cell, record: CellRecord | None, cache: BuildCache) -> bool:
    """A ``.pt2`` tells its own key; a factory's is known from its last build, where nothing changed since."""
    if not cache.limit:
        return False
    try:
        if cell.program:
            key = file_key(cell.program, None, cell.options())
        else:
            key = record.artifact.cache_key if record and record.artifact and record.digest == cell.digest() else None
        return key is not None and cache.find(key) is not None
    except OSError:  # a cache that cannot be read holds nothing for us
        return False
