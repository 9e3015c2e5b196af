"""Explains why torch.export fails on a model: the file, the line, and what to write there instead."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from linux_side.guards.model_files import is_of_model
from toolchain.errors import BuildFailedError
from toolchain.text import printable

# The remedy for a statement that depends on data, by its first word.
_INSTEAD = {
    "while": "take a fixed number of steps, and keep what is finished with torch.where(condition, old, new)",
    "for": "loop a fixed number of times, and keep what is finished with torch.where(condition, old, new)",
    "assert": "leave the check out of forward, or check shapes, which torch.export knows",
}
_CHOOSE = "compute both sides and choose with torch.where(condition, a, b), or decide outside of the model"
_NUMBER = "keep the value a tensor (no int(), float(), .item() or .tolist()); a size must come from an input's shape"


def failed_export(error: Exception, where: str, reason: str) -> BuildFailedError:
    """Returns the error of a build whose model torch.export cannot export.

    Args:
        error: torch.export's error.
        where: the model's name.
        reason: torch's own message, for errors that we cannot explain better.
    """
    frame = model_frame(error)
    place = f"{where}, {frame.filename}:{frame.lineno}" if frame else where
    if not (frame and any(isinstance(item, GuardOnDataDependentSymNode) for item in _chain(error))):
        return BuildFailedError(
            f"torch.export could not export the model: {reason}",
            where=place,
            remedy="make torch.export.export(model, args) work by itself first; -v shows the whole report",
        )
    code = printable(frame.line or "", 200)
    return BuildFailedError(
        f"what the model does depends on the data in a tensor, and an engine is one fixed graph:\n"
        f"  {Path(frame.filename).name}:{frame.lineno}: {code}",
        where=place,
        remedy=_instead(code),
    )


def model_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Returns the innermost frame of the model's own code in the traceback of an error or of its causes."""
    for item in _chain(error):
        frames = [frame for frame in traceback.extract_tb(item.__traceback__) if is_of_model(frame.filename)]
        if frames:
            return frames[-1]
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its chain of causes."""
    seen: set[int] = set()
    item: BaseException | None = error
    while item is not None and id(item) not in seen:
        seen.add(id(item))
        yield item
        item = item.__cause__ or item.__context__


def _instead(code: str) -> str:
    word = code.partition(" ")[0]
    if word in _INSTEAD:
        return _INSTEAD[word]
    return _CHOOSE if word in ("if", "elif") or " if " in code else _NUMBER
