"""Compiled kernels of TensorRT-RTX engines in files that processes share, whichever runtime runs the engines.

One small file for each model, GPU, driver and TensorRT release is in the user's cache folder. Any of them may be
deleted at any time: where a file is missing, damaged or another model's, the kernels are compiled anew. Imports no
torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from toolchain.host.gpu_probe import probe_gpus
from toolchain.io.atomic import write_bytes
from toolchain.manifest.models import Manifest
from toolchain.targets import Backend

logger = logging.getLogger("trtcross.runtime_cache")

# Bytes, of all files together.
SIZE_LIMIT = 2**30
# After so many a model is one for any size, whose kernels are there.
MOST_SHAPES = 64
_LOCK_SECONDS = 10.0
_SUFFIX = ".kernels"

# What compiled kernels depend on.
Identity = dict[str, str]


def default_folder() -> Path:
    """Where the files are: ``$TRTCROSS_RUNTIME_CACHE``, or in the user's cache folder."""
    named = os.environ.get("TRTCROSS_RUNTIME_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("trtcross", appauthor=False) / "kernels"


def chosen_folder(wanted: bool | str | os.PathLike[str]) -> Path | None:
    """The folder that the option ``runtime_cache`` means: True the default one, False none."""
    if isinstance(wanted, bool):
        return default_folder() if wanted else None
    return Path(wanted)


def identity_of(manifest: Manifest, gpu: str, capability: tuple[int, int]) -> Identity | None:
    """What a model's kernels on a GPU depend on, or None where that cannot be told.

    Args:
        gpu: the GPU's name, as CUDA gives it.
        capability: its compute capability.
    """
    driver = probe_gpus().driver
    if driver is None or manifest.target.backend is not Backend.TENSORRT_RTX:
        return None
    return {
        "engines": " ".join(engine.sha256 for engine in manifest.engines),
        "gpu": f"{gpu} sm_{capability[0]}{capability[1]}",
        "driver": driver,
        "runtime": manifest.target.runtime,
        "platform": manifest.target.platform.value,
    }


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
        """Replaces the file where there is something new, and removes the least recently used beyond the limit.

        Raises:
            OSError: the disk is full, or another process keeps the folder's lock.
        """
        if not kernels or kernels == self._known:
            return
        from filelock import FileLock  # a start that finds its kernels needs none

        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=_LOCK_SECONDS):
            write_bytes(self.path, self._head(kernels) + b"\n" + kernels)
            prune(folder, SIZE_LIMIT)
        self._known = kernels

    def _head(self, kernels: bytes) -> bytes:
        return json.dumps({**self._identity, "sha256": hashlib.sha256(kernels).hexdigest()}, sort_keys=True).encode()


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process has left half written; files that are in use elsewhere stay."""
    from filelock import FileLock

    with suppress(OSError), FileLock(folder / "lock", timeout=_LOCK_SECONDS):
        prune(folder, SIZE_LIMIT)


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
