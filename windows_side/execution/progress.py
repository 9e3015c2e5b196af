"""Telling whoever waits for a first call why it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_TEXT = "TensorRT-RTX compiles the engines' kernels for this GPU ..."


@contextmanager
def compiling() -> Iterator[None]:
    """Shows that kernels are compiled, on stderr: a spinner on a terminal, one line elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(_TEXT):
            yield
    else:
        console.print(_TEXT, highlight=False)
        yield
