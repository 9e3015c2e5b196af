"""Writes records of cells as a run of the matrix does."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from linux_side.matrix.records import ArtifactFacts, CellRecord, RunFolder
from linux_side.matrix.spec.cells import Cell
from toolchain.io.hashing import file_digest


def finish(
    folder: RunFolder, cell: Cell, *, state: str = "passed", content: bytes = b"artifact", **more: Any
) -> CellRecord:
    """Writes an artifact and a record, and returns the record."""
    for name in ("cells", "artifacts", "logs"):
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    path = folder.artifact(cell.id)
    path.write_bytes(content)
    facts = ArtifactFacts(
        size=len(content),
        sha256=file_digest(path),
        engines=1,
        operators=4,
        in_engines=3,
        fallback={"aten.relu": 1},
        runtime="1.6.1.120",
        from_cache=False,
        cache_key=None,
        phases={"convert": 1.5},
    )
    values: dict[str, Any] = {
        "id": cell.id,
        "digest": cell.digest(),
        "spec_digest": cell.spec_digest(),
        "state": state,
        "step": None if state == "passed" else "build",
        "level": "structure",
        "error": None if state == "passed" else {"kind": "BuildFailedError", "problem": "no luck", "exit_code": 7},
        "host": "test",
        "started": datetime(2026, 11, 23, tzinfo=timezone.utc),
        "build_seconds": 2.0,
        "verify_seconds": 0.5,
        "peak": 2**30,
        "artifact": facts if state == "passed" else None,
        "levels": [{"level": "integrity", "passed": True, "seconds": 0.1, "error": None, "details": {}}],
        "reproduce": ["cd /there", "trtcross build m:a"],
    }
    record = CellRecord(**{**values, **more})
    folder.write(record)
    return record
