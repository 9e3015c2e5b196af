"""Where in the user's model a node of an exported graph comes from, for messages that refuse it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+), in ', re.MULTILINE)
_TORCH = Path(torch.__file__).parent


def source_line(node: torch.fx.Node) -> str | None:
    """The innermost line of the model's own code that led to a node, as ``FILE:LINE``.

    Frames inside PyTorch are passed over: ``self.dropout(x)`` is what the user wrote, not the line in ``nn.Dropout``
    that calls the operator. Where every frame is PyTorch's, the innermost one is given.

    Args:
        node: of a program as it was exported or decomposed; an artifact's graph has no stack traces any more.

    Returns:
        None where the node carries no stack trace.
    """
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [frame for frame in frames if not Path(frame[0]).is_relative_to(_TORCH)]
    return ":".join((own or frames)[-1]) if frames else None


def located(node: torch.fx.Node) -> str:
    """An operator and the line that calls it, for the ``where`` of an error: ``aten.dropout.default, model.py:12``."""
    line = source_line(node)
    return f"{node.target}, {line}" if line else str(node.target)
