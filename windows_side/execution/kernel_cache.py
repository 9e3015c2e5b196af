"""Compiled kernels of a loaded model's engines, kept between processes.

TensorRT-RTX compiles an engine's kernels for the GPU at the first call, in seconds; with its runtime cache a later
process starts at once.
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
    """What a model's kernels on a GPU depend on, or None where that cannot be told."""
    properties = torch.cuda.get_device_properties(device)
    return identity_of(manifest, properties.name, (properties.major, properties.minor))


class KeptKernels(Protocol):
    """What keeps a model's compiled kernels.

    Attributes:
        warm: whether the kernels were there.
    """

    @property
    def warm(self) -> bool: ...
    def after_call(self, leaves: Sequence[Any]) -> None: ...
    def save(self) -> None: ...


class RuntimeCache:
    """The compiled kernels of one model.

    They are kept after the first call of each set of shapes, and once more when Python exits: without CUDA graphs,
    better kernels are compiled beside the calls. Not when the model goes: TensorRT-RTX has crashed where a collected
    model's cache was serialized.

    Attributes:
        handle: what Torch-TensorRT's engines take, a ``torch.classes.tensorrt.RuntimeCacheHandle``.
        warm: whether the kernels were there.
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
        """Keeps what the call has compiled, where its inputs are of new sizes."""
        shapes = tuple([getattr(leaf, "shape", None) for leaf in leaves])
        if shapes in self._called_with or len(self._called_with) == MOST_SHAPES:
            return
        self._called_with.add(shapes)
        self.save()
        _CALLED.add(self)

    def save(self) -> None:
        """A model runs without its cache as well, so a full disk is no error."""
        try:
            with current_gpu(self._device):  # whose name TensorRT-RTX writes into it
                kernels = self.handle.serialize()
            self._file.write(bytes(kernels.numpy()))
        except (OSError, RuntimeError) as error:
            logger.warning("compiled kernels are not kept in %s: %s", self._file.path, error)


_CALLED: WeakSet[RuntimeCache] = WeakSet()


@atexit.register
def _save_all() -> None:
    for cache in list(_CALLED):
        cache.save()
