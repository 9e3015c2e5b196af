"""How big models' weights are: calls their factories, in a child process. Models in on stdin, bytes out on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from toolchain.factory import call_factory

_TIMEOUT = 300.0


def estimate_weights(models: Sequence[str]) -> dict[str, int]:
    """Bytes of parameters and buffers of each ``module:factory``; those that fail are left out.

    What fails here fails again in its build, which says why.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "linux_side.matrix.planning.weights"],
            input=json.dumps(list(models)).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}
    # A line for each model: those before a crash count.
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"["))


def _weight(model: str) -> int:
    result = call_factory(model)
    module = result[0] if isinstance(result, tuple) else result
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a factory prints is no answer
    for model in json.load(sys.stdin):
        try:
            weight = _weight(model)
        except Exception:  # noqa: BLE001, S112 - the build will say what is wrong with it
            continue
        answers.write(json.dumps([model, weight]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main()
