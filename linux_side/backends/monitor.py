"""How far TensorRT's builder is, of what it says of its phases and their steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Of the builder's work, from 0 to 1, and what it is doing.
OnStep = Callable[[str, float], None]


@dataclass
class _Phase:
    """A phase that is at work.

    Attributes:
        start: the share of all work that was done when it began.
        width: its own share of all work.
    """

    start: float
    width: float
    steps: int
    done: int = 0

    @property
    def reached(self) -> float:
        return self.start + self.width * min(self.done / max(self.steps, 1), 1.0)


class Steps:
    """Makes one number, which never falls, of phases within phases; any thread may tell.

    TensorRT tells of how many steps a phase is, not how long they take: a step counts as much as its neighbours.

    Args:
        on_step: sees each step.
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
    """An ``IProgressMonitor`` for a builder's configuration; it must live as long as that."""
    import tensorrt

    class Monitor(tensorrt.IProgressMonitor):
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._steps = Steps(on_step)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._steps.step(phase_name, step)
            return True  # to go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.finish(phase_name)

    return Monitor()
