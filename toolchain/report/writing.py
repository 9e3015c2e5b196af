"""Writes reports beside their destination and moves them there, so that a reader always sees a complete one."""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import UsageError
from toolchain.io.atomic import new_part, write_bytes


def require_writable(path: Path) -> None:
    """Refuses a path where no report can be written; called before the work that the report is about.

    Raises:
        UsageError: there is no such folder, it cannot be written to, or ``path`` is a folder itself.
    """
    if path.is_dir():
        raise _not_written("it is a folder", path)
    try:
        new_part(path).unlink()
    except OSError as error:
        raise _not_written(error.strerror or str(error), path) from error


def write_report(path: Path, text: str) -> None:
    r"""Writes a report's text as UTF-8, with line ends of ``\n`` on every system.

    Raises:
        UsageError: the report cannot be written; an earlier one stays as it was.
    """
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise _not_written(error.strerror or str(error), path) from error


def _not_written(problem: str, path: Path) -> UsageError:
    return UsageError(
        f"the report cannot be written: {problem}",
        where=str(path),
        remedy="name a file in a folder that exists and can be written to",
    )
