"""Tells the user's model from PyTorch, Python and the toolchain, so that a message names a line of the model."""

from __future__ import annotations

import re
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Packages that run between the model and an operator, or call the model.
_PACKAGES = ("torch", "torch_tensorrt", "sympy", "numpy", "linux_side", "toolchain")
_SPECS = [spec for name in _PACKAGES if (spec := find_spec(name))]
_FOLDERS = [Path(folder) for spec in _SPECS for folder in spec.submodule_search_locations or ()]
_PYTHON = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")]
_INSTALLED = {"site-packages", "dist-packages"}  # folders in that of the standard library; a model may be in a package
_TRACE_LINE = re.compile(r'^ *File "(.+)", line (\d+), in ', re.MULTILINE)


@cache
def is_of_model(filename: str) -> bool:
    """Returns whether a file is the user's, as far as its path tells; code without a file is not."""
    path = Path(filename)
    if filename.startswith("<") or any(path.is_relative_to(folder) for folder in _FOLDERS):
        return False
    return not any(path.is_relative_to(folder) for folder in _PYTHON) or not _INSTALLED.isdisjoint(path.parts)


def lines_in(trace: str | None) -> list[str]:
    """Returns the lines of a node's stack trace as ``FILE:LINE``, the innermost last; those of libraries too."""
    return [f"{file}:{line}" for file, line in _TRACE_LINE.findall(trace or "")]


def model_lines_in(trace: str | None) -> list[str]:
    """Returns the lines of the model in a node's stack trace as ``FILE:LINE``, the innermost last."""
    return [line for line in lines_in(trace) if is_of_model(line.rpartition(":")[0])]
