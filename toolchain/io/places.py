"""Refuses an output that would replace another file of the same command."""

from __future__ import annotations

import os
from pathlib import Path

from toolchain.errors import UsageError


def require_own_place(out: str | os.PathLike[str], *others: str | os.PathLike[str] | None, where: str) -> None:
    """Refuses an output that is another file of the same command, also by a different path or a link.

    Args:
        out: the output.
        others: the other files that the command reads or writes; None stands for no file.
        where: the option that names the output.

    Raises:
        UsageError: the output would replace one of them.
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
    except (OSError, ValueError):  # Windows raises these for some of its paths
        return os.path.normcase(path.absolute())
