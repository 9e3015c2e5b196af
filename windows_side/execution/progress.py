"""Telling whoever waits for a first call why it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolchain.progress import showing, working

_TEXT = "TensorRT-RTX compiles the engines' kernels for this GPU"


@contextmanager
def compiling() -> Iterator[None]:
    """Shows that kernels are compiled, on stderr and at once: a bar on a terminal, one line elsewhere."""
    with showing(), working(_TEXT, delay=0):
        yield
