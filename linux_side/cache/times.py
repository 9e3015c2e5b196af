"""The seconds that each phase of past builds took, from which a build estimates how long it has left.

The estimate is advice: nothing depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from linux_side.options import BuildOptions
from toolchain.io.atomic import read_json, write_json

MOST = 200
_NAME = "times.json"

Event = dict[str, Any]


class Times:
    """The recorded times of past builds.

    Args:
        folder: the build cache's folder; None to record nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / _NAME if folder else None

    def of(self, model: str, options: BuildOptions) -> dict[str, float]:
        """Returns the seconds by phase of the last build of a model with these options, or else with any options."""
        known = self._read()
        exact, name = _key(model, options)
        found = known.get(f"{name} {exact}") or next(
            (value for key, value in reversed(known.items()) if key.startswith(f"{name} ")), {}
        )
        return {phase: float(value) for phase, value in found.items() if type(value) in (int, float)}

    def keep(self, model: str, options: BuildOptions, seconds: Mapping[str, float]) -> None:
        """Records the seconds by phase of a build, and drops the oldest records beyond ``MOST``."""
        if self._path is None:
            return
        exact, name = _key(model, options)
        known = self._read()
        known.pop(f"{name} {exact}", None)
        known[f"{name} {exact}"] = dict(seconds)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, dict(list(known.items())[-MOST:]))

    def _read(self) -> dict[str, dict[str, Any]]:
        found = (read_json(self._path) if self._path else None) or {}
        return {key: value for key, value in found.items() if isinstance(value, dict)}


def _key(model: str, options: BuildOptions) -> tuple[str, str]:
    """Returns two digests: of the options, and of the model's name with the current folder."""
    text = json.dumps(options.model_dump(mode="json"), sort_keys=True)
    return _digest(text), _digest(json.dumps([model, os.fspath(Path.cwd())]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_time_left(report: Callable[[Event], None], known: Mapping[str, float]) -> Callable[[Event], None]:
    """Adds ``seconds_left`` to each ``start`` and ``progress`` event of a phase with a known time.

    Args:
        report: receives the events.
        known: seconds by phase, in the order of the phases.

    Returns:
        What to report events to in place of ``report``.
    """
    if not known:
        return report
    phases, begun = list(known), [0.0]

    def add(event: Event) -> None:
        phase = event.get("phase")
        if event["event"] == "start":
            begun[0] = time.monotonic()
        if event["event"] in ("start", "progress") and phase in phases:
            after = sum(known[name] for name in phases[phases.index(phase) + 1 :])
            rest = max(known[phase] - (time.monotonic() - begun[0]), 0.0)
            event = {**event, "seconds_left": round(after + rest, 1)}
        report(event)

    return add
