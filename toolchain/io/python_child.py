"""The command of a child process that runs one of our modules, whatever is in the current folder."""

from __future__ import annotations

import sys

# `python -m` searches the current folder first: a torch.py or a select.py of the user would be imported from there.
_START = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def python_child(module: str, *arguments: str) -> list[str]:
    """Returns a command like ``python -m MODULE ARGUMENTS``, but without the current folder on the path."""
    return [sys.executable, "-c", _START, module, *arguments]
