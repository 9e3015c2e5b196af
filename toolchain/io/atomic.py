"""Files that are there whole or not at all: written beside their place and moved into it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

IN_USE = "is in use by another process"
IN_USE_S = 2.0
"""How long a file that is in use may keep another from its place: readers and virus scanners hold one for less."""


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

    On Windows a file that another process reads or replaces cannot be replaced at that moment: it is tried for a while.

    Raises:
        OSError: the destination is a folder, or, on Windows, read-only or open in another process; it says which.
    """
    try:
        _replace(source, destination)
    except (PermissionError, IsADirectoryError) as error:
        raise OSError(error.errno, f"the destination {_why_not_replaced(destination)}", str(destination)) from error
    with contextlib.suppress(OSError):  # a folder cannot be opened, or synced, everywhere
        sync(destination.parent)


def _replace(source: Path, destination: Path) -> None:
    """Tries until ``IN_USE_S`` have passed, where only another process stands in the way."""
    end = time.monotonic() + IN_USE_S
    while True:
        try:
            source.replace(destination)
            return
        except PermissionError:
            if os.name != "nt" or _why_not_replaced(destination) != IN_USE or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _why_not_replaced(destination: Path) -> str:
    if destination.is_dir():
        return "is a folder"
    if destination.exists() and not destination.stat().st_mode & stat.S_IWUSR:
        return "is read-only"
    return IN_USE


def sync(path: Path, flags: int = os.O_RDONLY) -> None:
    """Makes sure that what was written to a file, or into a folder, is on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty file beside ``path`` for the block to fill, and then moves it into place, once it is on the disk.

    If the block fails, or the process is killed, what was at ``path`` is still there. Several processes may do so at
    once: the last one wins.

    Raises:
        OSError: the folder cannot be written to, or the file cannot be put there.
    """
    part = new_part(path)
    try:
        yield part
        sync(part, os.O_RDWR)  # Windows syncs no file that is open for reading alone
        replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(what: str, path: Path, *, remedy: str) -> Iterator[None]:
    """Says of a block that writes what could not be written, and what to do.

    Raises:
        UsageError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{what} cannot be written: {error.strerror or error}", where=str(path), remedy=remedy
        ) from error


def write_bytes(path: Path, data: Buffer) -> None:
    """Writes beside the destination and moves into place; needs a folder that exists."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, beside its place and moved there; lone surrogates become question marks."""
    write_bytes(path, text.encode(errors="replace"))


def write_json(path: Path, document: Any) -> None:
    """Writes a document as indented JSON, beside its place and moved there."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
