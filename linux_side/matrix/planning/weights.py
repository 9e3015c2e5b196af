"""Determines the size of models' weights in a child process, which calls their factories."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from toolchain.factory import call_factory
from toolchain.io.events import events_to_parent, read_events, start_child
from toolchain.io.python_child import python_child

_TIMEOUT = 300.0


def estimate_weights(models: Sequence[str], base: Path = Path()) -> dict[str, int]:
    """Returns the bytes of parameters and buffers of each ``module:factory``, without factories that fail.

    A factory that fails here fails again in its build, which reports why.

    Args:
        models: the factories' names.
        base: the folder in which modules are looked up.
    """
    command = python_child("linux_side.matrix.planning.weights", json.dumps(list(models)))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child, events = start_child(command, cwd=base, **quiet)
    timer = threading.Timer(_TIMEOUT, child.kill)
    with child, events:
        timer.start()
        try:
            # Each model has its own event, so a crash loses only the later ones.
            return {event["model"]: event["weights"] for event in read_events(events)}
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()


def _weight(model: str) -> int:
    result = call_factory(model)
    module = result[0] if isinstance(result, tuple) else result
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _main() -> None:
    events = events_to_parent()
    for model in json.loads(sys.argv[1]):
        try:
            weight = _weight(model)
        except Exception:  # noqa: BLE001, S112 - the build will report the error
            continue
        if events:
            events.send(model=model, weights=weight)


if __name__ == "__main__":
    _main()
