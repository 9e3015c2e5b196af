"""Finds the origin of a guard: the line of the model that queried a size, or the operator that was being lowered."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.fx.traceback
from torch._guards import SLoc
from torch.fx.experimental.symbolic_shapes import ShapeEnv

_HERE = str(Path(__file__).parent)
_OURS = str(Path(__file__).parents[1])
# Each call of the model goes through this file, as through a part of torch.
_IN_BETWEEN = str(Path(_OURS) / "frontend" / "data_attributes.py")
_STDLIB = sysconfig.get_paths()["stdlib"]
_LIBRARIES = tuple(str(Path(str(sys.modules[name].__file__)).parent) for name in ("torch", "sympy"))
_READER = str(Path(torch.__file__).parent / "_dynamo")
_OPERATOR = "operator "
_BRANCHES = ("__bool__", "__int__", "__index__")  # a size is queried by Python, not by an operator
_TRACE_LINE = re.compile(r'File "([^"]+)", line (\d+)')


@contextmanager
def located_guards() -> Iterator[None]:
    """Records the origin of every guard that torch adds within the block in the guard's ``sloc``."""
    original = ShapeEnv._get_sloc

    def located(self: Any, framework_loc: str | None = None) -> SLoc:
        found = original(self, framework_loc)
        operator = _running_operator()
        line = _lowered_operator() or _model_line() or found.maybe_user_loc
        return SLoc(operator or found.framework_loc, line)

    ShapeEnv._get_sloc = located
    try:
        yield
    finally:
        ShapeEnv._get_sloc = original


def is_of_operator(sloc: Any) -> bool:
    """Returns whether a guard comes from an operator and not from the model's own branches.

    Args:
        sloc: the location of a guard that was added within :func:`located_guards`.
    """
    return sloc is not None and isinstance(sloc.framework_loc, str) and sloc.framework_loc.startswith(_OPERATOR)


def location(sloc: Any) -> str | None:
    """Returns a guard's place in the model, as :func:`located_guards` recorded it; None if unknown."""
    return sloc.maybe_user_loc if sloc is not None else None


def line_of(node: torch.fx.Node) -> str | None:
    """Returns the innermost line of the model that led to a node; None if unknown."""
    return _line_in(node.meta.get("stack_trace"))


def _running_operator() -> str | None:
    """Returns the operator that is being traced and queries a size; None if the model itself does."""
    frame: FrameType | None = sys._getframe(1)
    called, branch = None, False
    while frame is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.startswith(_LIBRARIES):
            if name == "proxy_call":
                return f"{_OPERATOR}{frame.f_locals.get('func')}"
            if name == "run_node" and path.startswith(_READER):  # dynamo runs one function at a time on fake tensors
                target = getattr(frame.f_locals.get("node"), "target", "")
                function = target if isinstance(target, str) else getattr(target, "__name__", "")
                return None if _is_question(function) else f"{_OPERATOR}{function}"
            branch = branch or name in _BRANCHES
            if name == "__torch_function__" and not branch:  # some operators query before they are traced: contiguous()
                called = getattr(frame.f_locals.get("func"), "__name__", None)
        elif not path.startswith((_HERE, "<")) and not _is_library(path):
            return f"{_OPERATOR}{called}" if called and not _is_question(called) else None
        frame = frame.f_back
    return None


def _is_question(function: str) -> bool:
    """Returns whether a function is a query of the model's own, such as ``x.is_contiguous()``, to branch on."""
    return function.startswith(("is_", "__")) or function in ("dim_order", "equal", "stride")


def _model_line() -> str | None:
    """Returns the innermost line of the model that is running now; None if no model is being traced."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS) and not path.startswith((_HERE, _IN_BETWEEN)):
            return None  # frames further out are the caller's of the build
        if not path.startswith((_HERE, "<")) and not _is_library(path):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _lowered_operator() -> str | None:
    """Returns the operator that is being lowered, with the line of the model that calls it; None if there is none."""
    meta = torch.fx.traceback.get_current_meta()
    if (operator := meta.get("original_aten")) is None:
        return None
    line = _line_in(meta.get("stack_trace"))
    return f"{_OPERATOR}{operator}" + (f", {line}" if line else "")


def _line_in(trace: str | None) -> str | None:
    lines = [(path, line) for path, line in _TRACE_LINE.findall(trace or "") if not _is_library(path)]
    return ":".join(lines[-1]) if lines else None


def _is_library(path: str) -> bool:
    if path.startswith((*_LIBRARIES, _IN_BETWEEN)) or "/torch_tensorrt/" in path:
        return True
    return path.startswith(_STDLIB) and "site-packages" not in path
