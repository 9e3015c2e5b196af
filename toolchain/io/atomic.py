"""Files that are there whole or not at all: written beside their place and moved into it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import BuildFailedError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def part_prefix(path: Path, pid: int) -> str:
    """How the names of a process's unfinished files of ``path`` begin, so that a killed one's can be told apart."""
    return f".{path.name[:40]}.{pid}."


def new_part(path: Path) -> Path:
    """Makes an empty file beside ``path``, for :func:`replace_file` to move into its place.

    Not by ``tempfile``: in a folder that cannot be written to it tries names for hours on Windows.
    """
    part = path.with_name(f"{part_prefix(path, os.getpid())}{secrets.token_hex(6)}.part")
    part.touch(exist_ok=False)
    return part


def replace_file(source: Path, destination: Path) -> None:
    """Moves a finished file into place: readers see the old file or the new one, never a part.

    Raises:
        BuildFailedError: the destination is a folder, or, on Windows, read-only or open in another process.
    """
    try:
        source.replace(destination)
    except (PermissionError, IsADirectoryError) as error:
        raise BuildFailedError(
            f"the destination {_why_not_replaced(destination)}",
            where=str(destination),
            remedy="write to another path with -o, or mend that",
        ) from error
    with contextlib.suppress(OSError):  # a folder cannot be opened, or synced, everywhere
        descriptor = os.open(destination.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _why_not_replaced(destination: Path) -> str:
    if destination.is_dir():
        return "is a folder"
    if destination.exists() and not destination.stat().st_mode & stat.S_IWUSR:
        return "is read-only"
    return "is in use by another process"


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
