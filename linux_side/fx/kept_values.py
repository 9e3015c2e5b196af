"""The values behind the nodes of a graph stay where only the memory that holds them is another."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def values_kept() -> Iterator[None]:
    """Lets torch compute no value anew behind a node that a pass changed, unless shape, strides or dtype changed.

    ``FakeTensorUpdater`` (torch/_inductor/fx_utils.py, read in 2.14) goes on to all that follows where the node's
    memory is another, which it always is. Memory is a matter of Inductor's; TensorRT has its own.
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
