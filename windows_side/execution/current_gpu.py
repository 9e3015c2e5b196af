"""Sets and keeps the current GPU of a thread."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import local

import torch


@contextmanager
def current_gpu(device: torch.device) -> Iterator[None]:
    """Makes a GPU and its context this thread's current ones, even if the thread has not used CUDA before."""
    with torch.cuda.device(device):
        torch.cuda.mem_get_info()
        yield


@cache
def keep_current_gpu() -> None:
    """Makes every garbage collection restore the thread's current GPU, from now on and for the whole process.

    TensorRT makes an engine's GPU the current one when the engine is released. Where a model is in a reference cycle,
    that happens at any time, in whichever thread Python collects garbage. With a single GPU nothing is to be done.
    """
    if torch.cuda.device_count() > 1:
        gc.callbacks.append(_Keeper())


class _Keeper(local):
    """A callback of :mod:`gc`. Each thread has its own current GPU, and so its own ``before``."""

    before: int | None = None

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        # Asking for the current GPU would initialise CUDA, perhaps while this very thread does, or after a fork.
        if not torch.cuda.is_initialized():
            self.before = None
        elif phase == "start":
            self.before = torch.cuda.current_device()
        elif self.before is not None and torch.cuda.current_device() != self.before:
            torch.cuda.set_device(self.before)
