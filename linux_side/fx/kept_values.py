"""Keeps the values of a graph's nodes when only the memory that they are in has changed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def values_kept() -> Iterator[None]:
    """Stops torch from recomputing values after a changed node whose shape, strides and dtype are unchanged.

    ``FakeTensorUpdater`` (torch/_inductor/fx_utils.py of torch 2.14) recomputes everything after a node whose memory
    has changed, which is always the case. Only Inductor needs that; TensorRT manages its own memory.
    """
    from torch._inductor import fx_utils

    compare = fx_utils._is_fake_tensor_same
    if "check_storage" not in inspect.signature(compare).parameters:
        yield
        return

    def same(*args: Any, **options: Any) -> bool:
        return compare(*args, **{**options, "check_storage": False})

    with patch.object(fx_utils, "_is_fake_tensor_same", same):
        yield
