"""Which GPU is the current one, of a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def current_gpu(device: torch.device) -> Iterator[None]:
    """Makes a GPU the current one and its context this thread's, though the thread may not have used CUDA before."""
    with torch.cuda.device(device):
        torch.cuda.mem_get_info()
        yield
