"""The stack trace of each node of a traced graph, read from Python's own frames."""

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
    """Lets torch note where each node comes from, as it does, without describing a hundred frames anew for each.

    Most of them were there at the node before: what is said of a line is made once. Where another torch describes
    frames in another way, it goes its own.
    """
    if not hasattr(torch.fx.proxy, "CapturedTraceback"):
        yield
        return
    with patch.object(torch.fx.proxy, "CapturedTraceback", _Stack):
        yield
    _described.clear()


_described: dict[tuple[CodeType, int], traceback.FrameSummary] = {}


class _Stack:
    """In the place of torch's: the frames that run, the innermost last."""

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
    key = code, frame.f_lasti  # the line itself would be looked up from the code's first one on
    if (found := _described.get(key)) is None:
        found = _described[key] = traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name)
    return found
