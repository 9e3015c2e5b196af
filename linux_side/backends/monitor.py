"""Computes the progress of TensorRT's builder from the phases and steps that it reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Called with the builder's current phase and the fraction of its work done, from 0 to 1.
OnStep = Callable[[str, float], None]


@dataclass
class _Phase:
    """A phase that has started and not finished.

    Attributes:
        start: the fraction of all work that was done when it started.
        width: its own fraction of all work.
        steps: how many steps it has.
        done: how many of them are done.
    """

    start: float
    width: float
    steps: int
    done: int = 0

    @property
    def reached(self) -> float:
        return self.start + self.width * min(self.done / max(self.steps, 1), 1.0)


class Steps:
    """Turns nested phases into one fraction that never decreases. Any thread may call the methods.

    TensorRT reports how many steps a phase has and not how long they take, so the steps of a phase count equally.

    Args:
        on_step: called at each step.
    """

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._reached = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            outer = self._phases.get(parent or "")
            start, width = (outer.reached, outer.width / max(outer.steps, 1)) if outer else (0.0, 1.0)
            self._phases[name] = _Phase(start, width, steps)

    def step(self, name: str, number: int) -> None:
        with self._lock:
            if phase := self._phases.get(name):
                phase.done = max(phase.done, number + 1)
                self._reached = max(self._reached, phase.reached)
            reached = self._reached
        self._on_step(name, reached)

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)


def progress_monitor(on_step: OnStep) -> Any:
    """Returns an ``IProgressMonitor`` for a builder's configuration, which it must outlive."""
    import tensorrt

    class Monitor(tensorrt.IProgressMonitor):
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._steps = Steps(on_step)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._steps.step(phase_name, step)
            return True  # continue the build

        def phase_finish(self, phase_name: str) -> None:
            self._steps.finish(phase_name)

    return Monitor()
