"""A file that is written must be none of those that are read: it would take their place."""

from __future__ import annotations

import os
from pathlib import Path

from toolchain.errors import UsageError


def require_own_place(out: str | os.PathLike[str], *others: str | os.PathLike[str] | None, where: str) -> None:
    """Refuses an output that is another file of the same command, by whatever path: a link is that file too.

    Args:
        others: what the command reads, or writes besides; None is no file.
        where: the option that names the output.

    Raises:
        UsageError: with the file that would be replaced.
    """
    for other in others:
        if other is not None and _same_file(Path(out), Path(other)):
            raise UsageError(
                f"it would replace another file of this command, {os.fspath(other)}",
                where=f"{where} {os.fspath(out)}",
                remedy="name another file to write",
            )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist
        return _place(one) == _place(other)


def _place(path: Path) -> str:
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):  # of Windows, for some of its paths
        return os.path.normcase(path.absolute())
