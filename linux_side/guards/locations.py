"""Finds the origin of a guard: the line of the model that queried a size, or the operator that was being lowered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.fx.traceback
from torch._guards import SLoc
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from linux_side.guards.model_files import is_of_model, model_lines_in

_LIBRARIES = tuple(str(Path(str(sys.modules[name].__file__)).parent) for name in ("torch", "sympy"))
_READER = str(Path(torch.__file__).parent / "_dynamo")
_OPERATOR = "operator "
_BRANCHES = ("__bool__", "__int__", "__index__")  # a size is queried by Python, not by an operator


@contextmanager
def located_guards() -> Iterator[None]:
    """Records the origin of every guard that torch adds within the block in the guard's ``sloc``."""
    original = ShapeEnv._get_sloc
    outside = sys._getframe(2)  # whoever enters the block; the frame between is contextlib's

    def located(self: Any, framework_loc: str | None = None) -> SLoc:
        found = original(self, framework_loc)
        operator = _running_operator(outside)
        line = _lowered_operator() or _model_line(outside) or found.maybe_user_loc
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
    return _innermost(node.meta.get("stack_trace"))


def _frames_within(outside: FrameType) -> Iterator[FrameType]:
    """Yields the running frames that a frame has called, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not outside:
        yield frame
        frame = frame.f_back


def _running_operator(outside: FrameType) -> str | None:
    """Returns the operator that is being traced and queries a size; None if the model itself does."""
    called, branch = None, False
    for frame in _frames_within(outside):
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
        elif is_of_model(path):
            return f"{_OPERATOR}{called}" if called and not _is_question(called) else None
    return None


def _is_question(function: str) -> bool:
    """Returns whether a function is a query of the model's own, such as ``x.is_contiguous()``, to branch on."""
    return function.startswith(("is_", "__")) or function in ("dim_order", "equal", "stride")


def _model_line(outside: FrameType) -> str | None:
    """Returns the innermost line of the model that is running now; None if no model is being traced."""
    frames = (frame for frame in _frames_within(outside) if is_of_model(frame.f_code.co_filename))
    return next((f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in frames), None)


def _lowered_operator() -> str | None:
    """Returns the operator that is being lowered, with the line of the model that calls it; None if there is none."""
    meta = torch.fx.traceback.get_current_meta()
    if (operator := meta.get("original_aten")) is None:
        return None
    line = _innermost(meta.get("stack_trace"))
    return f"{_OPERATOR}{operator}" + (f", {line}" if line else "")


def _innermost(trace: str | None) -> str | None:
    return next(reversed(model_lines_in(trace)), None)
