"""Many threads may launch engines at once; while one captures a CUDA graph, none does.

A launch of TensorRT-RTX in one thread beside a capture in another ended in a segmentation fault (``enqueueV3`` called
``cuEventRecord``): seen on an NVIDIA H100 with TensorRT-RTX 1.6. Replaying a graph launches no engine and needs none of
this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class LaunchLock:
    """Launches among themselves, or one capture.

    A capture that waits goes first, or it might wait for ever; captures are few and short, so that launches do not.
    """

    def __init__(self) -> None:
        self.launching = _Launching()
        self._one_capture = Lock()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Not to be entered by a thread that is launching or capturing."""
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
    """A context for launches, not to be entered by a thread that is launching or capturing.

    No generator makes it: every call of a model without graphs goes through it.
    """

    def __init__(self) -> None:
        self._mutex = Lock()
        self.changed = Condition(self._mutex)
        self.count = 0
        self.barred = False

    def __enter__(self) -> None:
        with self._mutex:  # the condition's own lock, without the method calls around it
            while self.barred:
                self.changed.wait()
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self.count -= 1
            if not self.count:
                self.changed.notify_all()


# The process's: models and GPUs share what TensorRT-RTX trips over.
LAUNCH_LOCK = LaunchLock()
