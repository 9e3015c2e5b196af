"""Shows why a first call takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolchain.progress import showing, working

_TEXT = "TensorRT-RTX compiles the engines' kernels for this GPU"


@contextmanager
def compiling() -> Iterator[None]:
    """Shows on stderr that kernels are compiled: a bar on a terminal, one line elsewhere. It appears at once."""
    with showing(), working(_TEXT, delay=0):
        yield
