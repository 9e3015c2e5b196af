"""Finds the line of the user's model that a node of an exported graph comes from, for messages."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+), in ', re.MULTILINE)
_TORCH = Path(torch.__file__).parent


def source_line(node: torch.fx.Node) -> str | None:
    """Returns the innermost line of the model's own code that led to a node, as ``FILE:LINE``.

    Frames inside PyTorch are skipped: the user wrote ``self.dropout(x)``, not the line in ``nn.Dropout`` that calls the
    operator. If every frame is inside PyTorch, the innermost one is returned.

    Args:
        node: a node of a program as exported or decomposed. The nodes of an artifact's graph have no stack traces.

    Returns:
        The line; None if the node has no stack trace.
    """
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [frame for frame in frames if not Path(frame[0]).is_relative_to(_TORCH)]
    return ":".join((own or frames)[-1]) if frames else None


def located(node: torch.fx.Node) -> str:
    """Returns an operator and the line that calls it, for an error: ``aten.dropout.default, model.py:12``."""
    line = source_line(node)
    return f"{node.target}, {line}" if line else str(node.target)
