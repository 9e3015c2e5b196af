"""Builds engines of TensorRT-RTX that compute products of fp32 in fp32, or in TF32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from toolchain.engine.tf32 import OFF, VARIABLE


@contextmanager
def with_tf32(*, used: bool) -> Iterator[None]:
    """Sets the variable that TensorRT-RTX's builder reads, whatever it is outside.

    Args:
        used: whether products of fp32 may use TF32.
    """
    before = os.environ.pop(VARIABLE, None)
    if not used:
        os.environ[VARIABLE] = OFF
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
