"""A lock under which many threads may launch engines at once, or one thread captures a CUDA graph.

On an NVIDIA H100 with TensorRT-RTX 1.6, a launch in one thread during a capture in another ended in a segmentation
fault (``enqueueV3`` called ``cuEventRecord``). Replaying a graph launches no engine and needs no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class LaunchLock:
    """Many launches, or one capture.

    A waiting capture precedes new launches; otherwise it might wait for ever. Launches do not, because captures are
    few and short.
    """

    def __init__(self) -> None:
        self.launching = _Launching()
        self._one_capture = Lock()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Waits for launches to end, and bars new ones. A thread that launches or captures must not enter it."""
        launching = self.launching
        with self._one_capture:
            try:
                with launching.changed:
                    launching.barred = True
                    while launching.count:
                        launching.changed.wait()
                yield
            finally:
                with launching.changed:
                    launching.barred = False
                    launching.changed.notify_all()


class _Launching:
    """A context for launches. A thread that launches or captures must not enter it.

    It is a class rather than a generator for speed: every call of a model without graphs enters it.
    """

    def __init__(self) -> None:
        self._mutex = Lock()
        self.changed = Condition(self._mutex)
        self.count = 0
        self.barred = False

    def __enter__(self) -> None:
        with self._mutex:  # the condition's own lock, without the condition's method calls
            while self.barred:
                self.changed.wait()
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self.count -= 1
            if not self.count:
                self.changed.notify_all()


# One for the process: the defect in TensorRT-RTX crosses models and GPUs.
LAUNCH_LOCK = LaunchLock()
