"""The caller's current GPU stays what it is.

TensorRT makes an engine's GPU the current one when the engine is released. Engines lie in reference cycles (of their
torch.fx graphs), so that happens at any time, in whatever thread Python collects garbage.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import local

import torch


@contextmanager
def current_gpu(device: torch.device) -> Iterator[None]:
    """Makes a GPU the current one and its context this thread's, though the thread may not have used CUDA before."""
    with torch.cuda.device(device):
        torch.cuda.mem_get_info()
        yield


@cache
def keep_current_gpu() -> None:
    """From now on each thread has the same GPU after collecting garbage as before; nothing to do where there is one."""
    if torch.cuda.device_count() > 1:
        keeper = _Keeper()
        gc.callbacks.append(keeper)
        if hasattr(os, "register_at_fork"):  # CUDA does not outlive a fork
            os.register_at_fork(after_in_child=partial(gc.callbacks.remove, keeper))


class _Keeper(local):
    """The current GPU is each thread's own, and so is what to go back to."""

    before = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.before = torch.cuda.current_device()
        elif torch.cuda.current_device() != self.before:
            torch.cuda.set_device(self.before)
