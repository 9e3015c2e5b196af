"""The runtime cache of one session: reads compiled kernels from the file that ``load`` shares, and writes them back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windows_side.engines.cuda import Gpu
from windows_side.kernel_files import MOST_SHAPES, Identity, KernelFile, logger
from windows_side.launch_lock import LaunchLock

# A call that takes more seconds than this may have compiled kernels. Comparing all kernels with those before would take
# as long as the first call.
_AT_ONCE = 0.05


class Kernels:
    """The compiled kernels of a session's engines, all in one cache of TensorRT-RTX.

    They are written after the first call of each set of shapes if some were compiled, and when the session is closed.

    Attributes:
        warm: whether the kernels were there when the session was made.
        launches: the lock of the engines' launches; the first launch with new shapes holds it alone.
    """

    def __init__(self, folder: Path | None, identity: Identity | None, gpu: Gpu) -> None:
        """Names the file of the kernels.

        Args:
            folder: the folder of the files, or None to keep nothing.
            identity: what the kernels depend on, or None where it is not known, so that nothing is kept.
            gpu: the GPU of the engines.
        """
        self._file = KernelFile(folder, identity) if folder is not None and identity is not None else None
        self._gpu = gpu
        self._cache: Any = None
        self._seen: set[tuple[Any, ...]] = set()
        self._compiled = True  # whether kernels were compiled that are not in the file
        self.warm = False
        self.launches = LaunchLock()

    def attach(self, config: Any) -> None:
        """Makes an engine use the cache, by its runtime configuration. The first call reads the file."""
        if self._file is None:
            return
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            kernels = self._file.read()
            # TensorRT-RTX refuses kernels of a different machine, and compiles its own.
            self.warm = kernels is not None and bool(self._cache.deserialize(kernels))
            self._compiled = not self.warm
        config.set_runtime_cache(self._cache)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Surrounds work that may compile kernels; work that takes long is assumed to have done so."""
        start = time.monotonic()
        yield
        if time.monotonic() - start > _AT_ONCE:
            self._compiled = True  # never set to False here: other calls may be watched at the same time

    def are_new(self, shapes: tuple[Any, ...]) -> bool:
        """Whether this is the first call with these shapes and kernels were compiled since the last save."""
        if self._cache is None or shapes in self._seen or len(self._seen) == MOST_SHAPES:
            return False
        self._seen.add(shapes)
        return self._compiled

    def save(self) -> None:
        """Writes the kernels. A failure is only logged, because a session runs without its cache too."""
        if self._file is None or self._cache is None or not self._seen:
            return
        try:
            with self._gpu.current():  # TensorRT-RTX writes the current GPU's name into the cache
                kernels = self._cache.serialize()
            if kernels is not None:
                self._file.write(bytes(memoryview(kernels)))
            self._compiled = False
            logger.debug("kernels are kept")
        except (OSError, RuntimeError) as error:
            logger.warning("compiled kernels are not kept in %s: %s", self._file.path, error)

    def close(self) -> None:
        """Releases the cache, once no engine uses it any more."""
        self._cache = None
