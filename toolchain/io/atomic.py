"""Writes files completely or not at all: each is written beside its destination and moved there."""

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
"""Seconds for which replacing a file in use is tried: readers and virus scanners keep a file open for less."""


def part_prefix(path: Path, pid: int) -> str:
    """Returns how the names of a process's unfinished files of ``path`` begin; they tell a killed process's files."""
    return f".{path.name[:40]}.{pid}."


def new_part(path: Path) -> Path:
    """Makes an empty file beside ``path``, which :func:`replace_file` moves there when it is complete.

    ``tempfile`` is not used: on Windows it tries names for hours in a folder that cannot be written to.
    """
    part = path.with_name(f"{part_prefix(path, os.getpid())}{secrets.token_hex(6)}.part")
    part.touch(exist_ok=False)
    return part


def replace_file(source: Path, destination: Path) -> None:
    """Moves a finished file into place: readers see the old file or the new one, never a part.

    On Windows, a file cannot be replaced while another process reads or replaces it; the move is retried for
    :data:`IN_USE_S` seconds.

    Raises:
        OSError: the destination is a folder, or, on Windows, read-only or in use by another process; it says which.
    """
    try:
        _replace(source, destination)
    except (PermissionError, IsADirectoryError) as error:
        raise OSError(error.errno, f"the destination {_why_not_replaced(destination)}", str(destination)) from error
    with contextlib.suppress(OSError):  # a folder cannot be opened, or synced, everywhere
        sync(destination.parent)


def _replace(source: Path, destination: Path) -> None:
    """Retries for ``IN_USE_S`` seconds if only another process prevents the move."""
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
    """Waits until everything written to a file, or into a folder, is on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty file beside ``path`` for the block to fill, then syncs it to the disk and moves it into place.

    If the block fails or the process is killed, ``path`` stays as it was. If several processes write the same file at
    once, the last one wins.

    Raises:
        OSError: the folder cannot be written to, or the file cannot be moved there.
    """
    part = new_part(path)
    try:
        yield part
        sync(part, os.O_RDWR)  # Windows does not sync a file that is open only for reading
        replace_file(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(what: str, path: Path, *, remedy: str) -> Iterator[None]:
    """Turns an OSError of the block into an error about the file.

    Args:
        what: what the block writes, for the message.
        path: the file.
        remedy: what to do next.

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
    """Writes bytes beside the destination and moves them there; the folder must exist."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, as :func:`write_bytes` does; lone surrogates become question marks."""
    write_bytes(path, text.encode(errors="replace"))


def write_json(path: Path, document: Any) -> None:
    """Writes a document as indented JSON, as :func:`write_bytes` does."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if the file is missing, damaged, or holds something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
