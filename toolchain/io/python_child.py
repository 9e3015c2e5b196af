"""The command of a child process that runs a module of ours, whatever stands in the current folder."""

from __future__ import annotations

import sys

# `python -m` looks in the current folder first, where a torch.py or a select.py of the user's would take ours' place.
_START = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def python_child(module: str, *arguments: str) -> list[str]:
    """What ``python -m MODULE ARGUMENTS`` does, with the current folder not on the path."""
    return [sys.executable, "-c", _START, module, *arguments]
