"""Verbs of several artifacts: patterns are expanded, each artifact is reported, and one exit code results."""

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
    """Gives a verb the argument ``artifacts``: one path or pattern, or more."""
    return click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, shell_complete=files)(function)


def html_option(function: F) -> F:
    """Gives a verb ``--html``, which writes a page about its one artifact."""
    path = click.Path(path_type=Path)
    return click.option("--html", type=path, help="Write a page with the graph as a picture; it needs no network.")(
        function
    )


def require_place(html: Path | None, artifacts: Sequence[str]) -> None:
    """Refuses a page that cannot be written, that would replace an artifact, or that would be of several artifacts.

    Raises:
        UsageError: one of these is so.
    """
    if html is None:
        return
    if len(expanded(artifacts)) > 1:
        raise UsageError("a page is of one artifact", where="--html", remedy="name one artifact at a time")
    from toolchain.report.writing import require_writable

    require_own_place(html, *artifacts, where="--html")
    require_writable(html)


def each(output: Output, artifacts: Sequence[str], run: Callable[[Output, str], None]) -> None:
    """Runs a verb on each artifact; after a failure it goes on with the next.

    For one artifact, the document is the verb's own. For several, it has one document each in ``artifacts``.

    Raises:
        UsageError: a pattern matches nothing.
        TrtcrossError: some artifacts failed; the class is that of the first failure.
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
    """Returns the paths, each once, with patterns replaced by their matches, which PowerShell leaves to the program.

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
