"""Moving a finished file into place, so that nobody ever sees a part of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from toolchain.errors import BuildFailedError


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
