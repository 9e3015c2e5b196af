"""Which GPU is the current one, of a thread."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
    """From now on each thread has the same GPU after collecting garbage as before; nothing to do where there is one.

    TensorRT makes an engine's GPU the current one when the engine is released. Where a model is in a reference cycle,
    that happens at any time, in whatever thread Python collects garbage.
    """
    if torch.cuda.device_count() > 1:
        gc.callbacks.append(_Keeper())


class _Keeper(local):
    """The current GPU is each thread's own, and so is what to go back to."""

    before: int | None = None

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        # Not before CUDA is there: asking would initialise it, perhaps while this very thread does; nor after a fork.
        if not torch.cuda.is_initialized():
            self.before = None
        elif phase == "start":
            self.before = torch.cuda.current_device()
        elif self.before is not None and torch.cuda.current_device() != self.before:
            torch.cuda.set_device(self.before)
