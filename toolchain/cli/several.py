"""Verbs that take several artifacts: patterns expanded, each artifact reported, one outcome."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from toolchain.cli.offers import files
from toolchain.cli.output import Output
from toolchain.errors import TrtcrossError, UsageError
from toolchain.io.places import require_own_place

F = TypeVar("F", bound=Callable[..., object])


def artifacts_argument(function: F) -> F:
    """Gives a verb the argument ``artifacts``, of one or more."""
    return click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, shell_complete=files)(function)


def html_option(function: F) -> F:
    """Gives a verb ``--html``, a page about its one artifact."""
    path = click.Path(path_type=Path)
    return click.option("--html", type=path, help="Write a page with the graph as a picture; it needs no network.")(
        function
    )


def require_place(html: Path | None, artifacts: Sequence[str]) -> None:
    """Refuses a page that cannot be written, that would take an artifact's place, or that would be of several.

    Raises:
        UsageError: with the one.
    """
    if html is None:
        return
    if len(expanded(artifacts)) > 1:
        raise UsageError("a page is of one artifact", where="--html", remedy="name one artifact at a time")
    from toolchain.report.writing import require_writable

    require_own_place(html, *artifacts, where="--html")
    require_writable(html)


def each(output: Output, artifacts: Sequence[str], run: Callable[[Output, str], None]) -> None:
    """Runs a verb on one artifact after the other; a failure does not keep it from those that follow.

    The document of one artifact is the verb's; of several it has those documents in ``artifacts``.

    Raises:
        UsageError: a pattern matches nothing.
        TrtcrossError: of the first that failed, with how many did.
    """
    paths = expanded(artifacts)
    if len(paths) == 1:
        run(output, paths[0])
        return
    failed: dict[str, TrtcrossError] = {}
    parts = []
    for path in paths:
        part = output.part()
        try:
            run(part, path)
        except TrtcrossError as error:
            part.fail(error)
            failed[path] = error
        parts.append(part.document)
        output.unwritable = output.unwritable or part.unwritable
        output.say()
    output.put(artifacts=parts)
    if failed:
        kind = type(next(iter(failed.values())))
        raise kind(
            f"{len(failed)} of {len(paths)} artifacts failed",
            where=", ".join(failed),
            remedy="see the error of each above",
        )


def expanded(names: Sequence[str]) -> list[str]:
    """Paths, each once, with patterns replaced by the files that they match: PowerShell leaves them to the program.

    Raises:
        UsageError: a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for name in names:
        # The prefix of long Windows paths has a question mark of its own.
        plain = name.removeprefix("\\\\?\\")
        pattern = glob.has_magic(plain) and not Path(name).exists()
        paths = sorted(glob.glob(name)) if pattern else [name]  # noqa: PTH207 - its folder is in the pattern
        if not paths:
            raise UsageError(f"no file matches {name}", where="ARTIFACT", remedy="name a .pt2 file, or another pattern")
        found |= dict.fromkeys(paths)
    return list(found)
