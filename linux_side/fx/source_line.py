"""Finds the line of the user's model that a node of an exported graph comes from, for messages."""

from __future__ import annotations

import torch

from linux_side.guards.model_files import lines_in, model_lines_in


def source_line(node: torch.fx.Node) -> str | None:
    """Returns the innermost line of the model's own code that led to a node, as ``FILE:LINE``.

    Frames inside PyTorch are skipped: the user wrote ``self.dropout(x)``, not the line in ``nn.Dropout`` that calls the
    operator. If no frame is the model's, the innermost one is returned.

    Args:
        node: a node of a program as exported or decomposed. The nodes of an artifact's graph have no stack traces.

    Returns:
        The line; None if the node has no stack trace.
    """
    trace = node.meta.get("stack_trace")
    return next(reversed(model_lines_in(trace) or lines_in(trace)), None)


def located(node: torch.fx.Node) -> str:
    """Returns an operator and the line that calls it, for an error: ``aten.dropout.default, model.py:12``."""
    line = source_line(node)
    return f"{node.target}, {line}" if line else str(node.target)
