"""The runtime cache of one session: compiled kernels from the file that ``load`` shares, and back into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windows_side.engines.cuda import Gpu
from windows_side.kernel_files import MOST_SHAPES, Identity, KernelFile, logger
from windows_side.launch_lock import LaunchLock

# Seconds. To compile a kernel takes more; to ask TensorRT-RTX for all that there are takes as much, at the first call.
_AT_ONCE = 0.05


class Kernels:
    """Compiled kernels of a session's engines, all in one cache of TensorRT-RTX's.

    They are kept after the first call of each set of shapes, where some were compiled, and when the session is closed.

    Attributes:
        warm: whether they were there.
        launches: of the engines, among themselves; the first with its shapes is alone.
    """

    def __init__(self, folder: Path | None, identity: Identity | None, gpu: Gpu) -> None:
        """Names the file that compiled kernels are read from and kept in.

        Args:
            folder: of the files, or None: nothing is kept.
            identity: what kernels depend on, or None where it is not known.
        """
        self._file = KernelFile(folder, identity) if folder is not None and identity is not None else None
        self._gpu = gpu
        self._cache: Any = None
        self._seen: set[tuple[Any, ...]] = set()
        self._compiled = True  # but for those of the file
        self.warm = False
        self.launches = LaunchLock()

    def attach(self, config: Any) -> None:
        """Lets an engine use them, by its runtime configuration."""
        if self._file is None:
            return
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            kernels = self._file.read()
            # TensorRT-RTX takes none of another machine, and compiles them anew.
            self.warm = kernels is not None and bool(self._cache.deserialize(kernels))
            self._compiled = not self.warm
        config.set_runtime_cache(self._cache)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around what may compile some: it has, where it takes long."""
        start = time.monotonic()
        yield
        if time.monotonic() - start > _AT_ONCE:
            self._compiled = True  # never back to False here: other calls may be watched meanwhile

    def are_new(self, shapes: tuple[Any, ...]) -> bool:
        """Whether the first call with inputs of these shapes, or what came before it, has compiled some."""
        if self._cache is None or shapes in self._seen or len(self._seen) == MOST_SHAPES:
            return False
        self._seen.add(shapes)
        return self._compiled

    def save(self) -> None:
        """A session runs without its cache as well, so a full disk is no error."""
        if self._file is None or self._cache is None or not self._seen:
            return
        try:
            with self._gpu.current():  # whose name TensorRT-RTX writes into it
                kernels = self._cache.serialize()
            if kernels is not None:
                self._file.write(bytes(memoryview(kernels)))
            self._compiled = False
            logger.debug("kernels are kept")
        except (OSError, RuntimeError) as error:
            logger.warning("compiled kernels are not kept in %s: %s", self._file.path, error)

    def close(self) -> None:
        """Lets go of the cache, when no engine is left that uses it."""
        self._cache = None
