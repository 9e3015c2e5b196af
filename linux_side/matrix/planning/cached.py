"""Checks whether the build cache has a cell's artifact, as far as that is possible without importing torch."""

from __future__ import annotations

from linux_side.cache.key import file_key
from linux_side.cache.store import BuildCache
from linux_side.matrix.records import CellRecord
from linux_side.matrix.spec.cells import Cell


def in_cache(cell: Cell, record: CellRecord | None, cache: BuildCache) -> bool:
    """Returns whether the build cache is known to have a cell's artifact.

    The key of a ``.pt2`` file is computed. The key of any other model is that of its last build, if the cell's digest
    has not changed since.

    Args:
        cell: the cell.
        record: the cell's record, if there is one.
        cache: the build cache.
    """
    if not cache.limit:
        return False
    try:
        if cell.program:
            key = file_key(cell.program, None, cell.options())
        else:
            key = record.artifact.cache_key if record and record.artifact and record.digest == cell.digest() else None
        return key is not None and cache.find(key) is not None
    except OSError:  # an unreadable cache counts as empty
        return False
