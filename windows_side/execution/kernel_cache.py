"""Compiled kernels of TensorRT-RTX engines, kept between processes.

TensorRT-RTX compiles an engine's kernels for the GPU at the first call, in seconds; with its runtime cache a later
process starts at once. One small file for each model, GPU, driver and TensorRT release lies in the user's cache folder.
Processes may share them, and any of them may be deleted at any time: where a file is missing, damaged or another
model's, the kernels are compiled anew.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from toolchain.host.gpu_probe import probe_gpus
from toolchain.io.atomic import write_bytes
from toolchain.manifest.models import Manifest
from toolchain.targets import Backend
from windows_side.execution.current_gpu import current_gpu

logger = logging.getLogger("trtcross.runtime_cache")

# Bytes, of all files together.
SIZE_LIMIT = 2**30
_LOCK_SECONDS = 10.0
_SUFFIX = ".kernels"
# After so many a model is one for any size, whose kernels are there.
_MOST_SHAPES = 64

# What compiled kernels depend on.
Identity = dict[str, str]


def default_folder() -> Path:
    """Where the files lie: ``$TRTCROSS_RUNTIME_CACHE``, or in the user's cache folder."""
    named = os.environ.get("TRTCROSS_RUNTIME_CACHE")
    return Path(named) if named else user_cache_path("trtcross", appauthor=False) / "kernels"


def identity_of(manifest: Manifest, device: torch.device) -> Identity | None:
    """What a model's kernels on a GPU depend on, or None where that cannot be told."""
    driver = probe_gpus().driver
    if driver is None or manifest.target.backend is not Backend.TENSORRT_RTX:
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "engines": " ".join(engine.sha256 for engine in manifest.engines),
        "gpu": f"{properties.name} sm_{properties.major}{properties.minor}",
        "driver": driver,
        "runtime": manifest.target.runtime,
        "platform": manifest.target.platform.value,
    }


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
        if shapes in self._called_with or len(self._called_with) == _MOST_SHAPES:
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
        except (OSError, RuntimeError, Timeout) as error:
            logger.warning("compiled kernels are not kept in %s: %s", self._file.path, error)


_CALLED: WeakSet[RuntimeCache] = WeakSet()


@atexit.register
def _save_all() -> None:
    for cache in list(_CALLED):
        cache.save()


class KernelFile:
    """One model's file: a line of JSON that says whose kernels they are, and the kernels."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._identity = identity
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{digest[:32]}{_SUFFIX}"
        self._known = b""

    def read(self) -> bytes | None:
        """The kernels, or None where they are not there or not to be trusted."""
        try:
            head, _, kernels = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read: %s", self.path, error)
            return None
        if head != self._head(kernels):
            logger.warning("%s is not used: it is damaged, or another model's", self.path)
            return None
        with suppress(OSError):  # a folder that cannot be written to
            os.utime(self.path)  # the least recently used go first
        self._known = kernels
        return kernels

    def write(self, kernels: bytes) -> None:
        """Replaces the file where there is something new, and removes the least recently used beyond the limit."""
        if not kernels or kernels == self._known:
            return
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=_LOCK_SECONDS):
            write_bytes(self.path, self._head(kernels) + b"\n" + kernels)
            prune(folder, SIZE_LIMIT)
        self._known = kernels

    def _head(self, kernels: bytes) -> bytes:
        return json.dumps({**self._identity, "sha256": hashlib.sha256(kernels).hexdigest()}, sort_keys=True).encode()


def prune(folder: Path, limit: int) -> None:
    """Removes what a killed process has left, and the least recently used files until the rest fits ``limit`` bytes.

    The caller holds the folder's lock.
    """
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    total = 0
    for file in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True):
        total += file.stat().st_size
        if total > limit:
            file.unlink(missing_ok=True)
