"""Stack traces of the nodes of a traced graph, read from Python's own frames."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from unittest.mock import patch

import torch.fx.proxy


@contextmanager
def quick_stack_traces() -> Iterator[None]:
    """Makes torch record the stack trace of each node faster; the traces are the same.

    Torch describes about a hundred frames for each node, and most of them are the same as for the node before. Here
    each line is described once. A release of torch that records frames in another way is left as it is.
    """
    if not hasattr(torch.fx.proxy, "CapturedTraceback"):
        yield
        return
    try:
        with patch.object(torch.fx.proxy, "CapturedTraceback", _Stack):
            yield
    finally:
        _described.clear()


# By the code's id and the instruction. The code is kept so that no id is reused; codes of two files may be equal.
_described: dict[tuple[int, int], tuple[CodeType, traceback.FrameSummary]] = {}


class _Stack:
    """Replaces torch's ``CapturedTraceback``: the running frames, the innermost last."""

    def __init__(self, frames: list[traceback.FrameSummary]) -> None:
        self._frames = frames

    @classmethod
    def extract(cls) -> _Stack:
        frames, frame = [], sys._getframe(1)
        while frame is not None:
            frames.append(_describe(frame))
            frame = frame.f_back  # type: ignore[assignment]  # it is None at the end
        return cls(frames[::-1])

    def summary(self) -> traceback.StackSummary:
        return traceback.StackSummary(self._frames)


def _describe(frame: FrameType) -> traceback.FrameSummary:
    code = frame.f_code
    key = id(code), frame.f_lasti  # f_lineno is slower: Python counts the lines from the first
    if (found := _described.get(key)) is None:
        found = _described[key] = code, traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name)
    return found[1]
