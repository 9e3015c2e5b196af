"""Files of compiled TensorRT-RTX kernels, which processes and runtimes share. Imports no torch.

The user's cache folder has one small file for each model, GPU, driver and TensorRT release. Any of them may be deleted
at any time: where a file is missing, damaged or another model's, the kernels are compiled again.
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

# The most bytes of all files together.
SIZE_LIMIT = 2**30
# A model that was called with so many sets of shapes takes any size, and its kernels are assumed to be complete.
MOST_SHAPES = 64
_LOCK_SECONDS = 10.0
_SUFFIX = ".kernels"

# What compiled kernels depend on.
Identity = dict[str, str]


def default_folder() -> Path:
    """Returns the folder of the files: ``$TRTCROSS_RUNTIME_CACHE``, or one in the user's cache folder."""
    named = os.environ.get("TRTCROSS_RUNTIME_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("trtcross", appauthor=False) / "kernels"


def chosen_folder(wanted: bool | str | os.PathLike[str]) -> Path | None:
    """Returns the folder that the option ``runtime_cache`` names: True means the default one, False means none."""
    if isinstance(wanted, bool):
        return default_folder() if wanted else None
    return Path(wanted)


def identity_of(manifest: Manifest, gpu: str, capability: tuple[int, int]) -> Identity | None:
    """Returns what a model's kernels on a GPU depend on, or None where no kernels can be kept.

    None are kept where the driver's version is not known, or where the engines are not TensorRT-RTX's.

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
    """One model's file: a line of JSON with the identity and the digest of its kernels, and then the kernels."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._identity = identity
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{digest[:32]}{_SUFFIX}"
        self._known = b""

    def read(self) -> bytes | None:
        """Returns the kernels, or None where the file is missing, damaged or of another identity."""
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
            os.utime(self.path)  # the least recently used files are pruned first
        self._known = kernels
        return kernels

    def write(self, kernels: bytes) -> None:
        """Replaces the file if the kernels are new, and prunes the folder to its limit.

        Raises:
            OSError: the disk is full, or another process keeps the folder's lock.
        """
        if not kernels or kernels == self._known:
            return
        from filelock import FileLock  # imported late: a process that finds its kernels needs no lock

        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=_LOCK_SECONDS):
            write_bytes(self.path, self._head(kernels) + b"\n" + kernels)
            prune(folder, SIZE_LIMIT)
        self._known = kernels

    def _head(self, kernels: bytes) -> bytes:
        return json.dumps({**self._identity, "sha256": hashlib.sha256(kernels).hexdigest()}, sort_keys=True).encode()


def remove_unfinished(folder: Path) -> None:
    """Removes partial files that a killed process has left, and prunes the folder. Does nothing if it is locked."""
    from filelock import FileLock

    with suppress(OSError), FileLock(folder / "lock", timeout=_LOCK_SECONDS):
        prune(folder, SIZE_LIMIT)


def prune(folder: Path, limit: int) -> None:
    """Removes partial files, and the least recently used files until the rest fits ``limit`` bytes.

    The caller holds the folder's lock, so every partial file was left by a killed process.
    """
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    total = 0
    for file in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True):
        total += file.stat().st_size
        if total > limit:
            file.unlink(missing_ok=True)
