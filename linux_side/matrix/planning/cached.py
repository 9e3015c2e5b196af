"""Whether the build cache holds a cell's artifact, as far as that can be told without importing torch."""

from __future__ import annotations

from pathlib import Path

from linux_side.cache.key import file_key
from linux_side.cache.store import BuildCache
from linux_side.matrix.records import CellRecord
from linux_side.matrix.spec.cells import Cell
from linux_side.options import BuildOptions, DynamicDimension


def in_cache(cell: Cell, record: CellRecord | None, cache: BuildCache) -> bool:
    """A ``.pt2`` tells its own key; a factory's is known from its last build, where nothing changed since."""
    path = Path(cell.model)
    if not cache.limit:
        return False
    try:
        if path.suffix == ".pt2" and path.is_file():
            key = file_key(path, None, build_options(cell))
        else:
            key = record.artifact.cache_key if record and record.artifact and record.digest == cell.digest() else None
        return key is not None and cache.find(key) is not None
    except OSError:  # a cache that cannot be read holds nothing for us
        return False


def build_options(cell: Cell) -> BuildOptions:
    """The options with which ``trtcross build`` builds a cell."""
    target = cell.target
    settings = cell.settings.model_dump(exclude_none=True)
    settings["dynamic"] = [DynamicDimension.parse(text) for text in settings.get("dynamic", ())]
    return BuildOptions(
        target=target.platform,
        backend=target.backend.value,
        gpus=target.gpus,
        precision=cell.precision,
        **settings,
    )
