"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.io.atomic import new_part, replace_file

if TYPE_CHECKING:
    from typing_extensions import Buffer


def write_bytes(path: Path, data: Buffer) -> None:
    """Writes beside the destination and moves into place; needs a folder that exists."""
    part = new_part(path)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors="replace"))


def write_json(path: Path, document: Any) -> None:
    write_text(path, json.dumps(document, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
