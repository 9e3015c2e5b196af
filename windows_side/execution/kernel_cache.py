"""Keeps the compiled kernels of a loaded model between processes.

TensorRT-RTX compiles an engine's kernels for the GPU at the first call, which takes seconds. With its runtime cache a
later process starts at once.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import torch

from toolchain.manifest.models import Manifest
from windows_side.execution.current_gpu import current_gpu
from windows_side.kernel_files import MOST_SHAPES, Identity, KernelFile, identity_of, logger


def identity_on(manifest: Manifest, device: torch.device) -> Identity | None:
    """Returns what a model's kernels on a GPU depend on, or None where that is not known."""
    properties = torch.cuda.get_device_properties(device)
    return identity_of(manifest, properties.name, (properties.major, properties.minor))


class KeptKernels(Protocol):
    """An object that keeps a model's compiled kernels.

    Attributes:
        warm: whether the kernels were there when the model was loaded.
    """

    @property
    def warm(self) -> bool: ...
    def after_call(self, leaves: Sequence[Any]) -> None: ...
    def save(self) -> None: ...


class RuntimeCache:
    """The compiled kernels of one model.

    They are written after the first call of each set of shapes, and again when Python exits: without CUDA graphs,
    TensorRT-RTX compiles better kernels in the background. They are not written when the model is collected:
    TensorRT-RTX has crashed where a collected model's cache was serialized.

    Attributes:
        handle: the ``torch.classes.tensorrt.RuntimeCacheHandle`` that Torch-TensorRT's engines take.
        warm: whether the kernels were there when the model was loaded.
    """

    def __init__(self, folder: Path, identity: Identity, device: torch.device) -> None:
        self._file = KernelFile(folder, identity)
        self._device = device
        self.handle: Any = torch.classes.tensorrt.RuntimeCacheHandle("")
        kernels = self._file.read()
        self.warm = kernels is not None
        if kernels is not None:
            self.handle.deserialize(torch.frombuffer(bytearray(kernels), dtype=torch.uint8))
        self._called_with: set[tuple[Any, ...]] = set()

    def after_call(self, leaves: Sequence[Any]) -> None:
        """Writes the kernels if a call with these shapes is the first one; after ``MOST_SHAPES`` sets it never does."""
        shapes = tuple([getattr(leaf, "shape", None) for leaf in leaves])
        if shapes in self._called_with or len(self._called_with) == MOST_SHAPES:
            return
        self._called_with.add(shapes)
        self.save()
        _CALLED.add(self)

    def save(self) -> None:
        """Writes the kernels. A failure is only logged, because a model runs without its cache too."""
        try:
            with current_gpu(self._device):  # TensorRT-RTX writes the current GPU's name into the cache
                kernels = self.handle.serialize()
            self._file.write(bytes(kernels.numpy()))
        except (OSError, RuntimeError) as error:
            logger.warning("compiled kernels are not kept in %s: %s", self._file.path, error)


_CALLED: WeakSet[RuntimeCache] = WeakSet()


@atexit.register
def _save_all() -> None:
    for cache in list(_CALLED):
        cache.save()
